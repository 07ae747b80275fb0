"""The host under test, what is known of it, and what a failing test shows of it besides its own words."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import testinfra
from airflow_api import AirflowApi
from canaries import Canaries
from checker_on_host import Checker
from expected import DAG, DIRECTORY, ENDPOINT_LIST, ENDPOINTS, METRICS_TOKEN_FILE, PROJECT, SECRETS
from playwright.sync_api import Browser, sync_playwright
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
# The annotated picture is compared with what the annotating program itself makes, and attacks on Docker are
# those of the filter's own tests.
sys.path += [str(ROOT / "images" / "annotate"), str(ROOT)]

HOST = pytest.StashKey[Host]()
SECRET_VALUES = pytest.StashKey[dict[str, str]]()
EVIDENCE = pytest.StashKey[int]()
EVIDENCE_LIMIT = 5
"""Failing tests that show the host's logs; when more fail, the first ones say it all."""
EVIDENCE_CHARACTERS = 60_000
EVIDENCE_COMMANDS = {
    "journal of the host": "journalctl --no-pager --lines 50 --output short-iso --quiet",
    # Without the answers to health checks, which are most of it.
    "logs of the containers": (
        f"cd {DIRECTORY} && timeout 30 docker compose --ansi never logs --timestamps --tail 100"
        " | grep --invert-match /health"
    ),
}

Json = dict[str, Any]
Http = Callable[..., requests.Response]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look for leaks when all else has had its chance to leak."""
    items.sort(key=lambda item: item.path.stem == "test_canaries")


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> Host:
    """The platform's one host, for the whole session, so that it is asked about many things only once.

    testinfra's own fixture lives for a module. Its Ansible backend also takes addresses from the inventory as
    they are written there; where one is an expression, Ansible evaluates it here.
    """
    option = request.config.option
    found = testinfra.get_hosts(
        [option.hosts],
        connection=option.connection,
        ssh_config=option.ssh_config,
        ansible_inventory=option.ansible_inventory,
    )
    assert len(found) == 1, f"name one host with --hosts; these were found: {found}"
    host = found[0]
    if host.backend.NAME == "ansible":
        variables = host.backend.get_variables()
        if "{{" in variables.get("ansible_host", ""):
            variables["ansible_host"] = host.ansible("debug", "var=ansible_host")["ansible_host"]
    request.config.stash[HOST] = host
    return host


@pytest.fixture(scope="session")
def env_files(host: Host) -> dict[str, dict[str, str]]:
    """The variables of .env and of each file below env/, by the file's name."""
    files: dict[str, dict[str, str]] = {}
    for line in host.check_output(f"cd {DIRECTORY} && grep -H '^[A-Z_]*=' .env env/*.env").splitlines():
        path, _, assignment = line.partition(":")
        name, _, value = assignment.partition("=")
        # Quotes keep a value as it is; they are no part of it.
        files.setdefault(Path(path).name, {})[name] = value.strip("'")
    return files


@pytest.fixture(scope="session")
def settings(env_files: dict[str, dict[str, str]]) -> dict[str, str]:
    """What is no secret: AIRFLOW_VERSION, ENVIRONMENT, AIRFLOW_UID and so on."""
    return env_files[".env"]


@pytest.fixture(scope="session")
def secrets(request: pytest.FixtureRequest, env_files: dict[str, dict[str, str]]) -> dict[str, str]:
    """Each secret's value by the name it has in `expected`."""
    values = {name: read(env_files[file][variable]) for name, (file, variable, read) in SECRETS.items()}
    request.config.stash[SECRET_VALUES] = values
    return values


@pytest.fixture(scope="session", autouse=True)
def _secrets_are_known(secrets: dict[str, str]) -> None:
    """Nothing is printed before it is known what must not be."""


@pytest.fixture(scope="session")
def containers(host: Host) -> dict[str, Json]:
    """What Docker says of each container of the stack, by service.

    After a reboot some may still be starting, and get three minutes for it.
    """
    command = (
        f"docker ps --all --quiet --filter label=com.docker.compose.project={PROJECT}"
        " --filter label=com.docker.compose.oneoff=False | xargs docker inspect"
    )
    deadline = time.monotonic() + 180
    while True:
        found = {
            document["Config"]["Labels"]["com.docker.compose.service"]: document
            for document in json.loads(host.check_output(command))
        }
        states = {document["State"].get("Health", {}).get("Status") for document in found.values()}
        if "starting" not in states or time.monotonic() > deadline:
            return found
        time.sleep(2)


@pytest.fixture(scope="session")
def execute(host: Host, containers: dict[str, Json]) -> Callable[..., Any]:
    """Return a function that runs a command in a service's container, for at most a minute."""

    def run(service: str, command: str, *arguments: str, options: str = "") -> Any:
        return host.run(f"timeout 60 docker exec {options} {containers[service]['Id']} {command}", *arguments)

    return run


@pytest.fixture(scope="session")
def endpoints() -> dict[str, str]:
    """The endpoints' addresses as this machine reaches them; SANDBOX_PORT_OFFSET moves them."""
    offset = int(os.environ.get("SANDBOX_PORT_OFFSET") or 0)
    return {name: f"http://127.0.0.1:{port + offset}" for name, port in ENDPOINTS.items()}


@pytest.fixture(scope="session")
def http(containers: dict[str, Json]) -> Iterator[Http]:
    """Return a function like requests.request that follows no redirect, and heeds no proxy and no .netrc."""
    with requests.Session() as session:
        session.trust_env = False

        def request(method: str, url: str, **options: Any) -> requests.Response:
            # A login that one answer hands out must not count at the next endpoint.
            session.cookies.clear()
            return session.request(method, url, **{"timeout": 20, "allow_redirects": False, **options})

        yield request


@pytest.fixture(scope="session")
def metrics(host: Host, http: Http, endpoints: dict[str, str]) -> Callable[[], str]:
    """Return a function that reads the metrics as the team's Prometheus does, with the token of the vault."""
    token = host.file(METRICS_TOKEN_FILE).content_string.strip()
    assert token

    def read() -> str:
        headers = {"Authorization": f"Bearer {token}"}
        answer = http("GET", f"{endpoints['webhook']}/metrics", headers=headers)
        # While the webhook is away, HAProxy answers in its place.
        assert answer.status_code != 401
        return answer.text

    return read


@pytest.fixture(scope="session")
def administrator(env_files: dict[str, dict[str, str]]) -> tuple[str, str]:
    """The login of Airflow's administrator."""
    values = env_files["init.env"]
    return values["_AIRFLOW_WWW_USER_USERNAME"], values["_AIRFLOW_WWW_USER_PASSWORD"]


@pytest.fixture(scope="session")
def flower_login(env_files: dict[str, dict[str, str]]) -> tuple[str, str]:
    """Flower's own login."""
    username, _, password = env_files["flower.env"]["FLOWER_BASIC_AUTH"].partition(":")
    return username, password


@pytest.fixture(scope="session")
def logins(administrator: tuple[str, str], flower_login: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """The login of each endpoint that has `access: login`."""
    found = {"airflow": administrator, "flower": flower_login}
    assert set(found) == {entry["name"] for entry in ENDPOINT_LIST if entry["access"] == "login"}, (
        "give each endpoint with `access: login` its login here"
    )
    return found


@pytest.fixture(scope="session")
def airflow(
    containers: dict[str, Json], endpoints: dict[str, str], administrator: tuple[str, str]
) -> AirflowApi:
    """Airflow's REST API through HAProxy, as the administrator."""
    return AirflowApi(endpoints["airflow"], administrator)


@pytest.fixture(scope="session")
def accounts(env_files: dict[str, dict[str, str]]) -> Json:
    """The accounts beside the administrator: `smoke_test`, and `listed`, those of the inventory."""
    found: Json = json.loads(env_files["init.env"]["ACCOUNTS"])
    return found


@pytest.fixture(scope="session")
def checker(host: Host, http: Http, env_files: dict[str, dict[str, str]]) -> Checker:
    """The checker, which looks by its timer, and when a test has it look."""
    address = urlsplit(env_files["checker.env"]["SLACK_WEBHOOK_URL"])
    return Checker(host, http, f"{address.scheme}://{address.netloc}")


@pytest.fixture(scope="session")
def weather_run(airflow: AirflowApi, http: Http, containers: dict[str, Json]) -> Json:
    """A run of the weather DAG that has ended, its tasks, and what the forecast was before and after it."""
    [address] = [
        variable.partition("=")[2]
        for variable in containers["airflow-worker"]["Config"]["Env"]
        if variable.startswith("AIRFLOW_VAR_WEATHER_FORECAST_URL=")
    ]

    def forecast() -> str:
        period = http("GET", address, headers={"User-Agent": "tests"}).json()["properties"]["periods"][0]
        return f"{period['name']}: {period['detailedForecast']}"

    before, started = forecast(), datetime.now(UTC)
    run = airflow.run(DAG)
    tasks = airflow.get(f"dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances")["task_instances"]
    return {"run": run, "tasks": tasks, "started": started, "forecasts": {before, forecast()}}


@pytest.fixture(scope="session")
def canaries(env_files: dict[str, dict[str, str]]) -> Canaries:
    """The secrets that no text on this machine may have."""
    return Canaries(env_files)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser: Debian's Chromium, with a new profile for each context."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-first-run",
            ],
        )
        yield chromium
        chromium.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a failing test print the host's journal and the containers' logs, and no secret."""
    report = yield
    stash = item.config.stash
    if not report.failed:
        return report
    if HOST in stash and stash.setdefault(EVIDENCE, 0) < EVIDENCE_LIMIT:
        stash[EVIDENCE] += 1
        for title, command in EVIDENCE_COMMANDS.items():
            result = stash[HOST].run(f"{command} 2>&1")
            report.sections.append((title, result.stdout[-EVIDENCE_CHARACTERS:]))
    redact(report, stash.get(SECRET_VALUES, {}))
    return report


def redact(report: pytest.TestReport, secrets: dict[str, str]) -> None:
    """Replace every secret in what the report prints by its name, an abridged one too."""

    def clean(text: str) -> str:
        for name, value in secrets.items():
            for length in range(len(value), 7, -1):
                text = text.replace(value[:length], f"[{name}]").replace(value[-length:], f"[{name}]")
        return text

    report.sections[:] = [(title, clean(text)) for title, text in report.sections]
    text = report.longreprtext
    if clean(text) != text:
        report.longrepr = clean(text)
