"""A run of the DAG `hand-on-secrets`, and where its secret may not be afterwards."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from airflow_api import AirflowApi
from airflow_pages import shown
from canaries import DEMONSTRATION, Canaries
from expected import DIRECTORY
from testinfra.host import Host

FILE = Path(__file__).resolve().parents[1] / "dags" / "hand_on_secrets.py"
DAG = "hand-on-secrets"
TASK = "use"

LIST = """
import docker, json
client = docker.APIClient(version="auto")
print(json.dumps([[each, client.inspect_container(each["Id"])] for each in client.containers(all=True)]))
"""
"""What a task learns of the containers that DAGs have at this moment, by the filter."""


@dataclass(frozen=True)
class HandedOn:
    """What anybody could read of a run that has ended well."""

    shown: dict[str, str]
    """Airflow's pages and answers, by place."""
    containers: str
    """What another task could read of the containers of DAGs."""

    @property
    def log(self) -> str:
        """Return the log of the task whose container printed the secret."""
        return self.shown[f"the answer /logs/1?full_content=true of {TASK}"]

    def check(self, canaries: Canaries) -> None:
        """Check that the secret has reached the container, and that nobody can read it anywhere."""
        [digest] = set(re.findall(r"given ([0-9a-f]{64})", self.log))
        values = canaries.values(DEMONSTRATION)
        assert digest in {hashlib.sha256(value.encode()).hexdigest() for value in values}
        # The container printed it: Airflow has masked it.
        assert "***" in self.log
        assert "GREETING" in self.shown[f"the page /rendered-templates of {TASK}"]
        texts = {**self.shown, "the containers": self.containers}
        assert {place: found for place, text in texts.items() if (found := canaries.in_text(text))} == {}


def hand_on(host: Host, airflow: AirflowApi, address: str, login: tuple[str, str]) -> HandedOn:
    """Run the DAG, which Airflow has to know, and collect what there is to read of it."""
    run = airflow.run(DAG)
    assert run["state"] == "success", run
    worker = f"cd {DIRECTORY} && timeout 60 docker compose exec --no-TTY airflow-worker"
    containers = host.check_output(f"{worker} python -c %s", LIST)
    return HandedOn(shown(address, login, run), containers)
