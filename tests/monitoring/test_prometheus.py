"""A real Prometheus reads the page as the document says, and answers what rules and dashboard ask."""

from __future__ import annotations

import re
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml
from airflow_checker import rules
from airflow_checker.lights import NOTICE
from flask import Flask

from tests.monitoring.conftest import ROOT, TOKEN, expressions, program
from tests.served import served
from tests.webhook.health_document import bad_day
from tests.webhook.network import free_port

SECONDS = 170
"""Longer than a busy machine takes for a start and three looks a second apart; then the page is too old."""
READ = " and on () ".join(
    (
        f'count_over_time(airflow_platform_health{{job="{rules.JOB}"}}[5m]) >= 3',
        f'up{{job="{rules.JOB}"}} == 1',
        'up{job="wrong"}',
        # All rules are one group, which is evaluated from its first to its last.
        'count_over_time(ALERTS{alertname="AirflowServiceDown"}[5m]) >= 2',
        'ALERTS{alertname="AirflowServiceDown"}',
    )
)
"""Has an answer when Prometheus has read the page and evaluated its rules."""
Ask = Callable[[str], list[dict[str, Any]]]


def documented() -> dict[str, Any]:
    """Return the job of the document."""
    text = (ROOT / "docs/when-something-is-wrong.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^ +scrape_configs:\n(?: .+\n)+", text, re.MULTILINE)
    [job] = yaml.safe_load(textwrap.dedent(block))["scrape_configs"]
    assert isinstance(job, dict)
    return job


@pytest.fixture(scope="module")
def target(app: Flask) -> Iterator[str]:
    with served(app) as address:
        yield address.removeprefix("http://")


@pytest.fixture(scope="module")
def prometheus(target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What a Prometheus knew at a moment by which it had read the page; another job has a wrong token."""
    path, folder, port = program("prometheus"), tmp_path_factory.mktemp("prometheus"), free_port()
    jobs = []
    for name, token in ((rules.JOB, TOKEN), ("wrong", f"{TOKEN}-of-yesterday")):
        (folder / name).write_text(token)
        jobs.append(
            {
                **documented(),
                "job_name": name,
                "scrape_interval": "1s",
                "authorization": {"credentials_file": str(folder / name)},
                "static_configs": [{"targets": [target]}],
            }
        )
    configuration = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "monitoring/rules.yml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [path, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SECONDS) as client,
    ):

        def ask(expression: str, at: float) -> list[dict[str, Any]]:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                answer = client.get("/api/v1/query", params={"query": expression, "time": at})
            except httpx.ConnectError:
                return []
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # it starts
                return []
            assert answer.status_code == httpx.codes.OK, answer.text
            found: list[dict[str, Any]] = answer.json()["data"]["result"]
            return found

        try:
            deadline = time.monotonic() + SECONDS
            at = time.time()
            while not ask(READ, at):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
                at = time.time()
            yield lambda expression: ask(expression, at)
        finally:
            process.kill()


def test_job_of_the_document_is_that_of_the_rules() -> None:
    assert documented()["job_name"] == rules.JOB
    assert "credentials_file" in documented()["authorization"]


def test_only_the_token_of_the_platform_lets_it_read(prometheus: Ask) -> None:
    up = {sample["metric"]["job"]: sample["value"][1] for sample in prometheus("up")}
    assert up == {rules.JOB: "1", "wrong": "0"}


@pytest.mark.parametrize("expression", expressions())
def test_panel_shows_something(prometheus: Ask, target: str, expression: str) -> None:
    """On a bad day, when nothing is unknown and there is one of everything."""
    assert prometheus(expression.replace("$job", rules.JOB).replace("$instance", target))


def test_lights_of_a_bad_day_are_alerts(prometheus: Ask) -> None:
    """Each by its own rule, evaluated on what was read; they wait to be told, or are told already."""
    lit = {finding["id"] for finding in bad_day()["findings"] if finding["severity"] != NOTICE}
    alerts = {one["metric"]["alertname"] for one in prometheus("ALERTS")}
    assert alerts == {rule.alert for rule in rules.rules() if rule.light in lit}
