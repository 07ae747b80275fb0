"""What the host has, what the vault has, and what the roles preflight and secrets do about a difference.

The real tasks look at a directory with the host's env files, and at the sandbox's vault.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plugins.conftest import ROOT, write
from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer

FILES = {
    ".env": "# a comment\nAIRFLOW_VERSION=2.5.3\nENVIRONMENT=production\n",
    "env/airflow.env": "AIRFLOW__CORE__FERNET_KEY={fernet_key}\n"
    "AIRFLOW__WEBSERVER__SECRET_KEY={webserver_secret_key}\n"
    "AIRFLOW__CELERY__BROKER_URL=redis://:of-an-address@redis\n",
    "env/postgres.env": "POSTGRES_USER=airflow\nPOSTGRES_PASSWORD={postgres_password}\n",
    "env/redis.env": "REDISCLI_AUTH={redis_password}\n",
}
HOST = {
    "fernet_key": "sentinel-fernet-with=inside=",
    "webserver_secret_key": "sentinel-web $#%\\ server",
    "postgres_password": "sentinel-postgres",
    "redis_password": "sentinel-redis",
}
PLACES = {
    "fernet_key": ("Airflow keys", "fernet key"),
    "webserver_secret_key": ("Airflow keys", "webserver secret key"),
    "postgres_password": ("Airflow database", "password"),
    "redis_password": ("Airflow queue", "password"),
}
REFUSED = "The vault has other values than the host runs with"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's directory with the files that an earlier run wrote."""
    directory = tmp_path / "srv"
    (directory / "env").mkdir(parents=True)
    quoted = {name: f"'{value}'" for name, value in HOST.items()}
    # One file without quotes: those of an earlier release have none.
    for name, text in FILES.items():
        (directory / name).write_text(text.format(**(HOST if "redis" in name else quoted)))
    return directory


@pytest.fixture
def vault(put: Any) -> None:
    """The same values in the vault, where the host's came from."""
    for item in dict(PLACES.values()):
        put(
            item,
            *(("production", field, HOST[name]) for name, (title, field) in PLACES.items() if title == item),
        )


@pytest.fixture
def run(tmp_path: Path, host: Path, server: FaultyServer) -> Run:
    """Return a function that runs both roles as the playbooks do, and writes down what they found."""

    def play(*options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        inputs = {
            "preflight_directory": str(host),
            "secrets_connect_url": server.url,
            "secrets_connect_token": TOKEN,
            "secrets_vault_id": VAULT_ID,
            "secrets_environment": "production",
            "secrets_live": "{{ preflight_live_secrets }}",
            "ansible_python_interpreter": sys.executable,
            **variables,
        }
        found = "{'secrets': secrets, 'live': preflight_live_secrets, 'pending': secrets_pending}"
        tasks: list[dict[str, Any]] = [
            {"name": "Look", "ansible.builtin.include_role": {"name": "preflight", "tasks_from": "live"}},
            {"name": "Fetch", "ansible.builtin.include_role": {"name": "secrets"}},
            write(found, f"'{tmp_path}/found.json'", tmp_path),
        ]
        document = {
            "hosts": "all",
            "connection": "local",
            "gather_facts": False,
            "vars": inputs,
            "tasks": tasks,
        }
        playbook = tmp_path / "play.yml"
        playbook.write_text(yaml.safe_dump([document], sort_keys=False))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OP_", "ANSIBLE_"))}
        environment |= {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        }
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-vvv", "-i", "web1,", *options]
        done = subprocess.run(
            [*command, str(playbook)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
        )
        shown = done.stdout + done.stderr
        assert not [value for value in (*HOST.values(), TOKEN) if value in shown], "a secret was printed"
        return done

    return play


@pytest.fixture
def found(tmp_path: Path) -> Callable[[], Any]:
    return lambda: json.loads((tmp_path / "found.json").read_text())


def flat(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output with the wrapping of long messages undone."""
    return re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.mark.usefixtures("vault")
def test_host_and_vault_agree(run: Run, found: Any, server: FaultyServer) -> None:
    done = run()
    assert done.returncode == 0, done.stdout
    assert found()["live"] == HOST
    assert found()["pending"] == []


def test_file_that_cannot_be_read_is_named(run: Run, host: Path) -> None:
    """And does not pass for that of a bare host; the values of the others are not shown."""
    (host / ".env").unlink()
    (host / ".env").mkdir()
    done = run()
    assert done.returncode != 0
    assert f"What web1 runs with cannot be read: grep: {host}/.env: Is a directory" in flat(done)


def test_bare_host_has_nothing_to_disagree_with(run: Run, found: Any, host: Path) -> None:
    for name in FILES:
        (host / name).unlink()
    done = run()
    assert done.returncode == 0, done.stdout
    assert found()["live"] == {}
    assert found()["pending"] == []


def test_files_that_cannot_be_read_are_not_taken_for_a_bare_host(run: Run, host: Path) -> None:
    (host / "env/redis.env").unlink()
    (host / "env/redis.env").mkdir()
    assert run().returncode != 0


@pytest.mark.usefixtures("vault")
def test_values_of_the_vault_that_differ_are_refused_and_named(run: Run, host: Path) -> None:
    (host / "env/postgres.env").write_text("POSTGRES_PASSWORD='another'\n")
    (host / "env/redis.env").write_text("REDISCLI_AUTH='another'\n")
    done = run()
    assert done.returncode != 0
    assert f"{REFUSED}: postgres_password, redis_password." in flat(done)
    assert "run ansible-playbook rotate.yml" in flat(done)


@pytest.mark.usefixtures("vault")
def test_other_lines_of_the_files_may_differ(run: Run, host: Path) -> None:
    """Every run renders them anew."""
    with (host / "env/airflow.env").open("a") as file:
        file.write("AIRFLOW__CORE__PARALLELISM=64\n")
    assert run().returncode == 0


@pytest.mark.usefixtures("vault")
def test_rotates_what_is_named_once_however_often_it_is_run(
    run: Run, found: Any, stored: Any, server: FaultyServer
) -> None:
    """As long as the host has not got the new values, every run finishes with the same."""
    names = ["fernet_key", "postgres_password"]
    # Connect takes the write of the first item, and its answer is lost.
    server.faults.append(Fault("504 Gateway Timeout", b"<html>", method="PUT", after=True))
    first = run(secrets_renew=names, secrets_change_allowed=True)
    assert first.returncode == 0, first.stdout
    assert found()["pending"] == names
    new = found()["secrets"]
    assert "Airflow keys / production / fernet key; Airflow database / production / password" in flat(first)
    assert new["webserver_secret_key"] == HOST["webserver_secret_key"]
    (keys,), (database,) = stored("Airflow keys"), stored("Airflow database")
    assert keys["production/fernet key"] == new["fernet_key"] != HOST["fernet_key"]
    assert keys["production/fernet key (previous)"] == HOST["fernet_key"]
    assert database["production/password (previous)"] == HOST["postgres_password"]
    assert new["fernet_key"] not in first.stdout + first.stderr

    second = run(secrets_renew=list(HOST), secrets_change_allowed=True)
    assert second.returncode == 0, second.stdout
    assert found()["pending"] == sorted(HOST)
    assert {name: found()["secrets"][name] for name in names} == {name: new[name] for name in names}
    (keys,), (database,) = stored("Airflow keys"), stored("Airflow database")
    assert keys["production/fernet key (previous)"] == HOST["fernet_key"]
    assert keys["production/webserver secret key (previous)"] == HOST["webserver_secret_key"]
    assert database["production/password"] == new["postgres_password"]

    assert f"{REFUSED}: fernet_key, postgres_password, redis_password" in flat(run())


@pytest.mark.usefixtures("vault")
def test_hosts_that_share_an_environment_share_the_new_value(run: Run, found: Any, stored: Any) -> None:
    """The second host's turn comes when the vault has the new value, and must not renew it again."""
    done = run("-i", "web1,web2,", secrets_renew=["redis_password"], secrets_change_allowed=True)
    assert done.returncode == 0, done.stdout
    (queue,) = stored("Airflow queue")
    assert queue["production/password (previous)"] == HOST["redis_password"]
    assert queue["production/password"] == found()["secrets"]["redis_password"]


@pytest.mark.usefixtures("vault")
def test_check_mode_says_what_would_be_rotated_and_writes_nothing(
    run: Run, found: Any, server: FaultyServer
) -> None:
    done = run("--check", secrets_renew=["redis_password"], secrets_change_allowed=True)
    assert done.returncode == 0, done.stdout
    assert "would get new ones: Airflow queue / production / password" in flat(done)
    assert {method for method, _ in server.requests} == {"GET"}
    assert found()["pending"] == []


@pytest.mark.usefixtures("vault")
@pytest.mark.parametrize("name", ["nonsense", "deploy_key", "flower_password"])
def test_what_cannot_be_rotated_is_refused_before_anything(run: Run, server: FaultyServer, name: str) -> None:
    """A name that is unknown, a secret that a person keeps, and one that needs no rotation."""
    server.requests.clear()
    done = run(secrets_renew=["fernet_key", name], secrets_change_allowed=True)
    assert done.returncode != 0
    assert f"These cannot be rotated: {name}. On this host these can: fernet_key, postgres_password" in flat(
        done
    )
    assert server.requests == []
