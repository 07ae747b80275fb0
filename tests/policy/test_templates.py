"""The host's files, rendered by Ansible for both image sources and three Airflow versions, and looked at.

Other settings: `CASES` in conftest.py. Add a new role's defaults and vars to `vars_files` in render.yml.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from docker_policy.settings import from_document

from tests import compose_project
from tests.policy.conftest import CASES, HOSTNAMES, ROLES, ROOT, TEMPLATES, VERSIONS, Rendered, load
from tests.policy.test_roles import names_in_expressions, of_other_roles
from tests.releases import NEWEST

COMPOSE = "srv/airflow/docker-compose.yaml"
HAPROXY = "srv/airflow/haproxy/haproxy.cfg"
ENV = "srv/airflow/.env"
POLICY = "srv/airflow/docker-socket-proxy/policy.json"
ONE_SHOT = {"airflow-init", "airflow-init-next", "airflow-cli", "airflow-webserver-standby"}
SERVICES = sorted(
    {
        *(
            "airflow-webserver",
            "airflow-scheduler",
            "airflow-triggerer",
            "airflow-worker",
            "flower",
            "postgres",
        ),
        *("redis", "haproxy", "webhook", "gate", "weather", "docker-socket-proxy", *ONE_SHOT),
    }
)
LIMITS: dict[str, dict[str, int]] = load(ROOT / "playbooks/group_vars/all/defaults.yml")[
    "service_limits_default"
]
FOR_WORKERS = {"worker-gateway", "dag-mirror", "worker-logs"}
"""Services that there are only with worker hosts."""
every_case = pytest.mark.parametrize("case", CASES)
every_service = pytest.mark.parametrize("service", SERVICES)

Compose = dict[str, Any]


@pytest.fixture(scope="module")
def projects(rendered: dict[str, Rendered]) -> dict[str, Compose]:
    """The Compose project of each case."""
    return {case: yaml.safe_load(files[COMPOSE]) for case, files in rendered.items()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_says_who_writes_it(template: str) -> None:
    """Somebody will edit the file on the host; it should tell them not to. JSON has no comments."""
    text = (ROOT / "templates" / template).read_text(encoding="utf-8")
    for first in ("#!/bin/sh\n", "<!doctype html>\n"):
        text = text.removeprefix(first)
    notes = ("{{ ansible_managed | comment }}\n", "{{ ansible_managed | comment('xml') }}\n")
    assert text.startswith(notes) or template.endswith(".json.j2")


@pytest.mark.parametrize("template", TEMPLATES)
def test_template_belongs_to_one_role(template: str) -> None:
    """As a role's tasks do, a template reads one role's variables."""
    names = names_in_expressions((ROOT / "templates" / template).read_text(encoding="utf-8"))
    owners = [role for role in ROLES if not of_other_roles(role, names)]
    assert owners


@every_case
def test_no_file_but_env_files_has_a_secret(
    rendered: dict[str, Rendered], secrets: dict[str, str], case: str
) -> None:
    """Only what is 0600 on the host may have one."""
    private = re.compile(r"(?:worker/)?srv/airflow/env/.*\.env")
    readable = {path: text for path, text in rendered[case].items() if not private.fullmatch(path)}
    values = [*secrets.values(), "value-of-token"]
    assert [(path, value) for path, text in readable.items() for value in values if value in text] == []


@every_case
def test_secret_is_quoted(rendered: dict[str, Rendered], secrets: dict[str, str], case: str) -> None:
    """Only in single quotes does Compose take what a person has entered, such as $ and #, as it is."""
    lines = [line for path, text in rendered[case].items() if "/env/" in path for line in text.splitlines()]
    carriers = [
        line for line in lines if any(value in line for value in (*secrets.values(), "value-of-token"))
    ]
    assert carriers
    assert [line for line in carriers if not re.fullmatch(r"\w+='[^']*'", line)] == []


@every_case
def test_project_has_all_services(projects: dict[str, Compose], case: str) -> None:
    """The stack is the same for every version and every source."""
    for_workers = FOR_WORKERS if "workers" in CASES[case] else set()
    assert set(projects[case]["services"]) == {*SERVICES, *for_workers}


@every_case
@every_service
def test_service_is_confined(projects: dict[str, Compose], case: str, service: str) -> None:
    """No capability, no way to gain one, and a log that ends."""
    definition = projects[case]["services"][service]
    assert definition["cap_drop"] == ["ALL"]
    assert "cap_add" not in definition
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in definition
    assert set(definition["logging"]["options"]) == {"max-size", "max-file"}


@every_case
@every_service
def test_service_is_looked_after(projects: dict[str, Compose], case: str, service: str) -> None:
    """What stays up has a health check and comes back; what runs once does neither."""
    definition = projects[case]["services"][service]
    if service in ONE_SHOT:
        assert definition["restart"] == "no"
        assert definition["profiles"]
    else:
        assert definition["restart"] == "unless-stopped"
        assert {"test", "interval", "timeout", "retries", "start_period"} <= set(definition["healthcheck"])


@every_case
def test_service_has_limits(projects: dict[str, Compose], case: str) -> None:
    """Each that there is, also one that is new: what goes wild must not take the host."""
    for definition in projects[case]["services"].values():
        assert re.fullmatch("[1-9][0-9]*m", definition["mem_limit"])
        assert definition["pids_limit"] >= 16


@every_case
@pytest.mark.parametrize(
    ("service", "setting"),
    [
        ("airflow-webserver", "AIRFLOW__WEBSERVER__WORKERS"),
        ("airflow-scheduler", "AIRFLOW__SCHEDULER__PARSING_PROCESSES"),
        ("airflow-worker", "AIRFLOW__CELERY__WORKER_CONCURRENCY"),
    ],
)
def test_limit_fits_what_the_service_does_at_a_time(
    projects: dict[str, Compose], case: str, service: str, setting: str
) -> None:
    """By the numbers of the table, which an operator may have changed."""
    definition = projects[case]["services"][service]
    most = {**LIMITS[service], **CASES[case].get("limits", {}).get(service, {})}
    count = int(definition["environment"][setting])
    assert count >= 1
    assert definition["mem_limit"] == f"{most['memory_mib'] + count * most['memory_mib_each']}m"
    assert definition["pids_limit"] == most["pids"] + count * most["pids_each"]


@pytest.mark.parametrize("service", ["airflow-worker", "redis"])
def test_limits_of_the_inventory_win(projects: dict[str, Compose], service: str) -> None:
    """One number of one service, and the further workers that share it; all others stay."""
    usual_project = projects[f"registry {NEWEST}"]
    given, usual = projects["other limits"]["services"], usual_project["services"]
    changed = {name for name in given if given[name]["mem_limit"] != usual[name]["mem_limit"]}
    assert changed == {*compose_project.workers(usual_project), "redis"}
    assert given[service]["pids_limit"] == usual[service]["pids_limit"]


def test_table_of_limits_has_each_service_once() -> None:
    """A variant, such as a standby or a second worker, has the limits of the service that it merges."""
    template = compose_project.TEMPLATE.read_text(encoding="utf-8")
    limited = re.findall(r"^  ([\w-]+):.*\n(?:    .*\n)*?{{ limits\('([\w-]+)'\) }}$", template, re.MULTILINE)
    assert sorted(limited) == sorted(zip(LIMITS, LIMITS, strict=True))
    assert template.count("limits('") == len(limited)
    assert template.count("mem_limit:") == template.count("pids_limit:") == 1


@every_case
def test_pidfile_ends_with_its_container(projects: dict[str, Compose], case: str) -> None:
    """After a kill its number is a living process's again, which keeps Celery and gunicorn from starting.

    Airflow's other programs write one only with --daemon.
    """
    services = projects[case]["services"]
    commands = {name: definition.get("command") or [] for name, definition in services.items()}
    assert not [name for name, command in commands.items() if {"--daemon", "-D"} & set(command)]
    writers = {
        name: definition
        for name, definition in services.items()
        if commands[name][:2] == ["airflow", "webserver"]
        or commands[name][:3] == ["airflow", "celery", "worker"]
    }
    assert {"airflow-worker", "airflow-webserver", "airflow-webserver-standby"} <= set(writers)
    for definition in writers.values():
        pidfile = definition["command"][definition["command"].index("--pid") + 1]
        [tmpfs] = definition["tmpfs"]
        assert tmpfs == "/run/airflow:uid=${AIRFLOW_UID},mode=0700"
        assert Path(pidfile).parent == Path("/run/airflow")


@every_case
def test_workers_do_not_talk_to_each_other(projects: dict[str, Compose], case: str) -> None:
    """Celery 5.2.7 may take no more tasks after Redis was away if it asks its neighbours first."""
    roles = {
        name: definition.get("labels", {}).get("airflow-platform.role")
        for name, definition in projects[case]["services"].items()
    }
    workers = [name for name, role in roles.items() if role == "worker"]
    assert workers
    for name in workers:
        assert {"--without-mingle", "--without-gossip"} <= set(projects[case]["services"][name]["command"])


@every_case
def test_only_haproxy_publishes_ports(projects: dict[str, Compose], case: str) -> None:
    """Those of the endpoints, and of the host names when there are any. A new one has to be meant."""
    services = projects[case]["services"]
    published = {name: definition["ports"] for name, definition in services.items() if "ports" in definition}
    if "workers" in CASES[case]:
        assert published.pop("worker-gateway") == ["8443:8443"]
    assert list(published) == ["haproxy"]
    named = {"host names": ["80:80"], "TLS": ["80:80", "443:443"]}.get(case, [])
    assert services["haproxy"]["ports"] == ["8080:8080", "8081:8081", "8082:8082", "8083:8083", *named]


@every_case
@every_service
def test_service_gets_the_env_files_of_its_level(
    projects: dict[str, Compose], case: str, service: str
) -> None:
    """The token goes where tasks run, Slack's address where callbacks do, the password to airflow-init."""
    airflow = ["env/airflow.env"]
    expected = {
        **{name: airflow for name in ("airflow-webserver", "airflow-triggerer")},
        "airflow-scheduler": [*airflow, "env/slack.env"],
        "airflow-worker": [*airflow, "env/onepassword.env", "env/slack.env"],
        "webhook": ["env/webhook.env"],
        "airflow-cli": [*airflow, "env/onepassword.env", "env/slack.env"],
        "airflow-init": [*airflow, "env/init.env"],
        "airflow-init-next": [*airflow, "env/init.env", "env/next.env"],
        "airflow-webserver-standby": [*airflow, "env/next.env"],
        **{name: [f"env/{name}.env"] for name in ("flower", "postgres", "redis")},
    }
    if projects[case]["services"][service].get("labels", {}).get("airflow-platform.role") == "worker":
        expected[service] = expected["airflow-worker"]
    assert projects[case]["services"][service].get("env_file", []) == expected.get(service, [])


@every_case
def test_env_file_for_callbacks_has_nothing_but_the_connection(
    rendered: dict[str, Rendered], case: str
) -> None:
    """The scheduler reads every DAG file, and needs no secret for that."""
    names = re.findall(r"^(\w+)=", rendered[case]["srv/airflow/env/slack.env"], re.MULTILINE)
    assert names == ["AIRFLOW_CONN_SLACK"]
    assert "AIRFLOW_CONN_SLACK" not in rendered[case]["srv/airflow/env/onepassword.env"]


@every_case
def test_tasks_and_webhook_have_their_own_token(rendered: dict[str, Rendered], case: str) -> None:
    """Whoever writes a DAG can read what the worker has, and could replace the webhook's key.

    Without a token of their own, tasks have the one there is, which the checker reports as `token-shared`.
    """
    found = {
        path: re.findall(r"^OP_(?:API_TOKEN|VAULT_ID)='(.*)'$", text, re.MULTILINE)
        for path, text in rendered[case].items()
        if "OP_API_TOKEN=" in text
    }
    platform = ["value-of-token", "value-of-vault"]
    tasks = ["value-of-token-of-tasks", "value-of-vault-of-tasks"]
    assert found == {
        "srv/airflow/env/onepassword.env": platform if case == "one token" else tasks,
        "srv/airflow/env/webhook.env": platform,
    }


@pytest.mark.parametrize("service", sorted(FOR_WORKERS))
def test_service_for_worker_hosts_is_confined(projects: dict[str, Compose], service: str) -> None:
    """Anybody may reach the gateway; neither has a secret in its variables, or writes to a disk."""
    test_service_is_confined(projects, "worker hosts", service)
    test_service_is_looked_after(projects, "worker hosts", service)
    definition = projects["worker hosts"]["services"][service]
    assert definition["read_only"]
    assert "env_file" not in definition
    assert definition["labels"]["airflow-platform.needed"] == "false"


def test_gateway_is_where_worker_hosts_and_airflow_look_for_it(projects: dict[str, Compose]) -> None:
    """A switch stops it before the stores change, because it uses both; the webhook alone gives it orders."""
    project = projects["worker hosts"]
    gateway = project["services"]["worker-gateway"]
    assert set(gateway["networks"]) == {"public", "edge-workers", "edge-airflow", "database", "broker"}
    assert gateway["networks"]["edge-airflow"] == {"aliases": ["atd-worker01", "atd-worker02"]}
    assert set(gateway["depends_on"]) == {"postgres", "redis"}
    assert project["networks"]["edge-workers"] == {"internal": True}
    users = [
        name for name, one in project["services"].items() if "worker_gateway:" in str(one.get("volumes"))
    ]
    assert sorted(users) == ["webhook", "worker-gateway"]
    neighbours = [
        name for name, one in project["services"].items() if "edge-workers" in one.get("networks", [])
    ]
    assert sorted(neighbours) == ["dag-mirror", "worker-gateway", "worker-logs"]


def test_gateway_knows_the_release_and_each_worker_host(
    rendered: dict[str, Rendered], secrets: dict[str, str]
) -> None:
    """The release by the tag of its image and by its secrets: a rotation keeps the image."""
    files = rendered["worker hosts"]
    text = files["srv/airflow/worker-gateway/haproxy.cfg"]
    [tag] = re.findall("^AIRFLOW_IMAGE=.*:(.+)$", files[ENV], re.MULTILINE)
    [release] = re.findall("^WORKER_RELEASE=(.+)$", files[ENV], re.MULTILINE)
    given = [secrets[name] for name in ("fernet_key", "redis_password", "worker_database_password")]
    hashed = hashlib.sha256("".join(given).encode()).hexdigest()
    assert release == f"{re.sub('[^a-z0-9]', '-', tag.lower())}-{hashed[:8]}"
    assert set(re.findall(r"\w+-(\S+)\.workers\.airflow\.internal", text)) == {release}
    assert re.findall(r"^backend logs_(\S+)\n.*\n  server main (\S+)", text, re.MULTILINE) == [
        ("atd-worker01", "10.0.0.21:8793"),
        ("atd-worker02", "worker02.example.org:9793"),
    ]
    assert "WORKERS=atd-worker01,atd-worker02\n" in files["srv/airflow/env/webhook.env"]


def test_main_host_has_a_queue_of_its_own(projects: dict[str, Compose]) -> None:
    """The smoke test's tasks pass files to each other, which only this host's worker has."""
    services = projects["worker hosts"]["services"]
    [*_, option, queues] = services["airflow-worker"]["command"]
    own = services["airflow-scheduler"]["environment"]["AIRFLOW_VAR_WEATHER_QUEUE"]
    assert (option, queues) == ("--queues", f"default,{own}")
    assert services["airflow-worker"]["environment"]["AIRFLOW_VAR_WEATHER_QUEUE"] == own
    assert services["gate"]["environment"]["GATE_SETS_AIRFLOW_VAR_WEATHER_QUEUE"] == own


def test_without_worker_hosts_nothing_is_there_for_them(rendered: dict[str, Rendered]) -> None:
    files = rendered[f"registry {NEWEST}"]
    for path in (COMPOSE, ENV, "srv/airflow/env/webhook.env", "srv/airflow/env/init.env"):
        assert not re.search(
            r"edge-workers|worker.gateway|worker-logs|dag-mirror|WORKER_GATEWAY|^WORKERS|WEATHER_QUEUE|--queues",
            files[path],
            re.MULTILINE,
        ), path


@every_case
def test_vault_is_asked_where_its_token_is(
    rendered: dict[str, Rendered], projects: dict[str, Compose], case: str
) -> None:
    """Elsewhere each lookup of a connection or variable would fail, and say so in a log."""
    setting = "AIRFLOW__SECRETS__BACKEND"
    holders = [path for path, text in rendered[case].items() if f"{setting}=" in text]
    assert holders == ["srv/airflow/env/onepassword.env"]
    services = projects[case]["services"].values()
    assert [service for service in services if setting in service.get("environment", {})] == []


@every_case
@every_service
def test_every_airflow_service_encrypts_xcoms(projects: dict[str, Compose], case: str, service: str) -> None:
    """The scheduler and the webserver read and clear XComs, too."""
    definition = projects[case]["services"][service]
    backend = definition.get("environment", {}).get("AIRFLOW__CORE__XCOM_BACKEND")
    has_key = "env/airflow.env" in definition.get("env_file", [])
    assert backend == ("encrypted_xcom.EncryptedXCom" if has_key else None)


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("AIRFLOW__CORE__XCOM_BACKEND", "roles/stack/vars/main.yml"),
        ("AIRFLOW__LOGGING__SECRET_MASK_ADAPTER", "roles/stack/vars/main.yml"),
        ("AIRFLOW__SECRETS__BACKEND", "templates/srv/airflow/env/onepassword.env.j2"),
    ],
)
def test_setting_names_what_the_image_has(setting: str, place: str) -> None:
    """An import that fails keeps every process of Airflow from starting."""
    text = (ROOT / place).read_text(encoding="utf-8")
    [(module, name)] = re.findall(rf"^ *{setting}(?:=|: )(\w+)\.(\w+)$", text, re.MULTILINE)
    source = (ROOT / f"images/airflow/lib/{module}.py").read_text(encoding="utf-8")
    assert re.search(rf"^(?:class|def) {name}\b", source, re.MULTILINE)


@every_case
def test_accounts_are_made_with_their_passwords(rendered: dict[str, Rendered], case: str) -> None:
    """As set-accounts of the image reads them. Only airflow-init has the file."""
    [given] = re.findall("^ACCOUNTS='(.*)'$", rendered[case]["srv/airflow/env/init.env"], re.MULTILINE)
    smoke = {
        "username": "smoke-test",
        "password": "value-of-airflow_smoke_password",
        "dag": "weather-checker",
    }
    assert json.loads(given) == {
        "smoke_test": smoke,
        "listed": [
            {**account, "password": f"value-of-airflow_account_{account['username']}"}
            for account in CASES[case].get("accounts", [])
        ],
    }


def test_other_accounts_ask_for_another_initialization(rendered: dict[str, Rendered]) -> None:
    """Else nobody would make them on a host that runs."""
    found = {
        case: re.findall("^INIT_FINGERPRINT=([0-9a-f]+)$", rendered[case][ENV], re.MULTILINE)
        for case in ("accounts", "addresses", "TLS")
    }
    assert found["accounts"] != found["addresses"] == found["TLS"]
    assert found["accounts"]


def init_fingerprint(rendered: dict[str, Rendered], case: str) -> str:
    """Return for what the database has to be initialized."""
    [found] = re.findall("^INIT_FINGERPRINT=([0-9a-f]+)$", rendered[case][ENV], re.MULTILINE)
    return str(found)


@every_case
def test_worker_hosts_have_a_password_if_there_are_any(rendered: dict[str, Rendered], case: str) -> None:
    """Only what initializes the database has it."""
    has_workers = "workers" in CASES[case]
    lines = ["WORKER_DATABASE_PASSWORD='value-of-worker_database_password'"] if has_workers else []
    assert [
        line
        for path, text in rendered[case].items()
        if path.startswith("srv/airflow/") and not path.startswith("srv/airflow/worker-gateway/")
        for line in text.splitlines()
        if "worker_database_password" in line or "WORKER_DATABASE_PASSWORD" in line
    ] == lines
    assert set(lines) <= set(rendered[case]["srv/airflow/env/init.env"].splitlines())


def test_first_worker_asks_for_another_initialization(rendered: dict[str, Rendered]) -> None:
    """Else nobody would make its role. Without workers the fingerprint is what it always was."""
    case = f"registry {NEWEST}"
    assert init_fingerprint(rendered, "worker hosts") != init_fingerprint(rendered, case)
    [accounts] = re.findall("^ACCOUNTS='(.*)'$", rendered[case]["srv/airflow/env/init.env"], re.MULTILINE)
    given = f"{NEWEST}value-of-airflow_admin_usernamevalue-of-airflow_admin_password{accounts}"
    expected = hashlib.sha256(given.encode()).hexdigest()[:16].lstrip("0")
    assert init_fingerprint(rendered, case) == expected


@every_case
def test_rest_api_takes_passwords_only_if_asked_to(projects: dict[str, Compose], case: str) -> None:
    """There, nobody counts how often somebody tries."""
    environment = projects[case]["services"]["airflow-webserver"]["environment"]
    backends = environment["AIRFLOW__API__AUTH_BACKENDS"].split(",")
    basic = ["airflow.api.auth.backend.basic_auth"] if case == "accounts" else []
    assert backends == [*basic, "airflow.api.auth.backend.session"]


@every_case
def test_links_in_messages_lead_to_the_platform(
    rendered: dict[str, Rendered], projects: dict[str, Compose], case: str
) -> None:
    """By its host names or, where there are none, by the inventory's name of the host."""
    airflow, status_page = {
        "host names": ("http://airflow.example.org", "http://webhook.example.org"),
        "TLS": ("https://airflow.example.org", "https://webhook.example.org"),
        "addresses": ("https://airflow.test", "https://status.test"),
    }.get(case, (f"http://{case}:8080", f"http://{case}:8081"))
    services = projects[case]["services"].values()
    given = {service.get("environment", {}).get("AIRFLOW__WEBSERVER__BASE_URL") for service in services}
    assert given - {None} == {airflow}
    assert f"STATUS_PAGE_URL='{status_page}'" in rendered[case]["srv/airflow/env/webhook.env"]


@every_case
def test_what_calls_the_internet_goes_through_the_proxy(rendered: dict[str, Rendered], case: str) -> None:
    """Relay, webhook, checker and rclone; and none of them when it asks the host itself."""
    proxies = CASES[case].get("proxies", {})
    if proxies:
        proxies = {**proxies, "no_proxy": f"{proxies['no_proxy']},localhost,127.0.0.1"}
    files = rendered[case]
    given = {
        path: dict(
            re.findall(r"^(?:Environment=)?[\"]?(\w+_proxy)=['\"]?([^'\"\n]*)", files[path], re.MULTILINE)
        )
        for path in (
            "etc/systemd/system/smee-relay.service",
            "srv/airflow/env/webhook.env",
            "srv/airflow/env/checker.env",
        )
    }
    given["rclone"] = json.loads(files["etc/airflow-release/settings.json"])["proxies"]
    assert given == dict.fromkeys(given, proxies)


@every_case
def test_filter_reads_its_settings(rendered: dict[str, Rendered], case: str) -> None:
    """In the form that the package takes: the inventory's defaults, and what the weather DAG needs."""
    settings = from_document(json.loads(rendered[case][POLICY]))
    assert settings.images == ("atddocker/*", "airflow-platform/annotate")
    assert 'AIRFLOW_VAR_WEATHER_ANNOTATE_IMAGE: "airflow-platform/annotate:' in rendered[case][COMPOSE]
    assert settings.volumes == ("airflow_weather",)
    assert settings.registries == ("docker.io",)
    assert (settings.memory_mib, settings.cpus, settings.pids) == (8192, 4, 4096)
    assert settings.no_new_privileges
    assert settings.cgroup_parent == ("airflow-dags.slice" if case == "Docker of systemd" else "")


@every_case
def test_filter_is_the_least_that_it_can_be(projects: dict[str, Compose], case: str) -> None:
    """It has Docker's socket: no network, no secret, nothing of its own to write to but its sockets."""
    service = projects[case]["services"]["docker-socket-proxy"]
    assert service["network_mode"] == "none"
    assert service["read_only"] is True
    assert not {"env_file", "environment", "ports", "networks"} & set(service)
    # It reads its settings again; a label with their hash would end the streams of running tasks.
    assert "labels" not in service
    assert "/run/docker-policy" in str(service["tmpfs"])
    assert set(service["volumes"]) == {
        "./docker-socket-proxy:/etc/docker-policy:ro",
        "docker_proxy:/run/docker-proxy",
        "/var/run/docker.sock:/var/run/docker.sock",
    }


@every_case
def test_only_the_socket_proxy_mounts_the_docker_socket(projects: dict[str, Compose], case: str) -> None:
    """The raw socket is root on the host."""
    holders = [
        name
        for name, definition in projects[case]["services"].items()
        if any("docker.sock" in str(volume) for volume in definition.get("volumes", []))
    ]
    assert holders == ["docker-socket-proxy"]


@every_case
def test_gate_gives_dags_what_the_scheduler_gives_them(projects: dict[str, Compose], case: str) -> None:
    """Otherwise it refuses what would run. What env files have is secret, and not for the gate."""
    scheduler, gate = (projects[case]["services"][name] for name in ("airflow-scheduler", "gate"))
    prefix = "GATE_SETS_"
    given = {
        name.removeprefix(prefix): value
        for name, value in sorted(gate["environment"].items(), key=lambda item: item[0].startswith(prefix))
    }
    # One only saves time.
    wanted = {
        name: value for name, value in scheduler["environment"].items() if name != "PREPARE_FOR_DAG_FILES"
    }
    assert wanted.items() <= given.items()
    plugins = "${AIRFLOW_PROJ_DIR}/plugins:/opt/airflow/plugins:ro"
    assert plugins in scheduler["volumes"]
    assert plugins in gate["volumes"]
    assert "env_file" not in gate


@every_case
def test_what_dags_do_in_the_gate_has_limits(projects: dict[str, Compose], case: str) -> None:
    """What they leave in its folders counts as its memory: these are small, and emptied after each check."""
    gate = projects[case]["services"]["gate"]
    sizes = dict(re.findall(r"^(.+):size=(\d+)m,nr_inodes=\d+k$", "\n".join(gate["tmpfs"]), re.MULTILINE))
    assert len(sizes) == len(gate["tmpfs"])
    assert sum(map(int, sizes.values())) <= int(gate["mem_limit"].removesuffix("m")) / 4
    assert {*sizes, "/dev/shm"} == set(gate["command"][gate["command"].index("--scratch") + 1 :])


@every_case
def test_every_reference_is_defined(
    rendered: dict[str, Rendered], projects: dict[str, Compose], case: str
) -> None:
    """Compose turns a variable that is not in .env into nothing, and goes on."""
    defined = set(re.findall(r"^([A-Z_]+)=.+$", rendered[case][ENV], re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", rendered[case][COMPOSE]))
    assert used <= defined
    project = projects[case]
    networks = {name for service in project["services"].values() for name in service.get("networks", [])}
    assert networks == set(project["networks"])


@every_case
def test_images_are_pinned(rendered: dict[str, Rendered], case: str) -> None:
    """The same inventory makes the same stack next year."""
    images = re.findall(r"^[A-Z_]+_IMAGE=(.+)$", rendered[case][ENV], re.MULTILINE)
    assert len(images) == 7
    assert [image for image in images if not re.fullmatch(r"[a-z0-9./-]+:[0-9][\w.-]*", image)] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_compose_file_is_the_same_for_both_image_sources(rendered: dict[str, Rendered], version: str) -> None:
    """Images keep the same promises wherever they come from; only their names differ."""
    own_image = re.compile(r"airflow-platform/\w+:[\w.-]+")
    cases = (f"{source} {version}" for source in ("registry", "packages"))
    # A case's name is its host's, too.
    one, other = (own_image.sub("", rendered[case][COMPOSE]).replace(case, "host") for case in cases)
    assert one == other


@pytest.mark.parametrize("version", VERSIONS)
def test_version_reaches_the_host(rendered: dict[str, Rendered], version: str) -> None:
    """In .env, where the next run looks for what runs, and in the images' names."""
    for source in ("registry", "packages"):
        text = rendered[f"{source} {version}"][ENV]
        assert f"AIRFLOW_VERSION={version}\n" in text
        assert re.search(
            rf"^AIRFLOW_IMAGE=airflow-platform/airflow:{re.escape(version)}-", text, re.MULTILINE
        )


@every_case
@pytest.mark.parametrize("path", ["etc/docker/daemon.json", "srv/airflow/build/docker-bake.json", POLICY])
def test_json_is_json(rendered: dict[str, Rendered], case: str, path: str) -> None:
    """Docker refuses to start over a comma."""
    assert json.loads(rendered[case][path])


def test_containers_outlive_docker(rendered: dict[str, Rendered]) -> None:
    """Without live-restore, a Docker that was killed stops at its next start what it finds running."""
    assert json.loads(rendered[f"registry {NEWEST}"]["etc/docker/daemon.json"]) == {
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
    }


def test_operators_settings_of_docker_stay(rendered: dict[str, Rendered]) -> None:
    """Ours win, and what an earlier version of this project wrote goes."""
    bare = json.loads(rendered[f"registry {NEWEST}"]["etc/docker/daemon.json"])
    found = json.loads(rendered["a host with Docker"]["etc/docker/daemon.json"])
    assert found == {**bare, "dns": ["192.0.2.53"], "features": {"a": True}}


@every_case
def test_build_knows_its_contexts(rendered: dict[str, Rendered], case: str) -> None:
    """Each target has a Dockerfile, and is built on another target or on an image that is pulled."""
    targets = json.loads(rendered[case]["srv/airflow/build/docker-bake.json"])["target"]
    missing = [
        name for name, target in targets.items() if not (ROOT / target["context"] / "Dockerfile").is_file()
    ]
    assert missing == []
    bases = {
        value.removeprefix("target:")
        for target in targets.values()
        for value in target["contexts"].values()
        if value.startswith("target:")
    }
    assert bases <= set(targets)
    assert {"airflow", "webhook", "annotate", "docker-policy"} <= set(targets)
    assert ("postgres" in targets) == (CASES[case]["source"] == "packages")


@every_case
def test_only_missing_images_are_built(rendered: dict[str, Rendered], case: str) -> None:
    """One that is built again has another id, and `up` replaces its container: HAProxy's, Postgres'."""
    bake = json.loads(rendered[case]["srv/airflow/build/docker-bake.json"])
    built = bake["group"]["default"]["targets"]
    assert sorted(built) == sorted(CASES[case].get("missing", bake["target"]))
    # What is built stands on what is built with it, or on an image that is there.
    bases = {
        base.removeprefix("target:")
        for name in built
        for base in bake["target"][name]["contexts"].values()
        if base.startswith("target:")
    }
    assert bases <= set(built)


@pytest.mark.parametrize("endpoint", HOSTNAMES)
def test_plain_http_redirects_to_tls(rendered: dict[str, Rendered], endpoint: str) -> None:
    """With a certificate nothing is served in the clear, neither by port nor by name."""
    frontends = dict(re.findall(r"^frontend (\w+)\n((?:  .*\n|\n)*)", rendered["TLS"][HAPROXY], re.MULTILINE))
    assert f"redirect location https://{HOSTNAMES[endpoint]}" in frontends[endpoint]
    assert "default_backend" not in frontends[endpoint]
    assert "redirect scheme https" in frontends["by_name_plain"]
    assert "backend" not in frontends["by_name_plain"]
    assert "bind :443 ssl crt" in frontends["by_name"]
    assert f"use_backend {endpoint} if" in frontends["by_name"]


@pytest.mark.parametrize("endpoint", HOSTNAMES)
def test_host_name_leads_to_its_service(rendered: dict[str, Rendered], endpoint: str) -> None:
    """By name on port 80, beside the port of its own."""
    text = rendered["host names"][HAPROXY]
    assert (
        f"use_backend {endpoint} if {{ req.hdr(host),field(1,:),lower -m str {HOSTNAMES[endpoint]} }}" in text
    )
    assert f"\nbackend {endpoint}\n" in text
    assert "bind :443" not in text


def compose_is_here() -> bool:
    """Tell whether this machine has Compose itself; a control node needs none."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("case", CASES if compose_is_here() else [])
def test_compose_accepts_the_project(rendered: dict[str, Rendered], tmp_path: Path, case: str) -> None:
    """Beside all that, Compose itself has to like it; Molecule's host asks it in any case."""
    for path, text in rendered[case].items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    directory = tmp_path / "srv/airflow"
    command = [
        "docker",
        "compose",
        "--project-directory",
        str(directory),
        "--profile",
        "*",
        "config",
        "--quiet",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
