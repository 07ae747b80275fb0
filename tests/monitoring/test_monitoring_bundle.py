"""The Prometheus and Alertmanager of `monitoring: true`: their files, and what they do with them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from airflow_checker.lights import LIGHTS
from flask import Flask

from sandbox import slack
from tests.monitoring.conftest import ROOT, TOKEN, Promtool, program
from tests.policy.conftest import ansible
from tests.served import served
from tests.webhook.health_document import bad_day, document
from tests.webhook.network import free_port

SLACK_SECRET = "T000/B000/secret-of-slack"
FILES = {
    "prometheus.yml": "etc/airflow-monitoring/prometheus.yml",
    "alertmanager.yml": "etc/airflow-monitoring/alertmanager.yml",
    "prometheus": "etc/systemd/system/airflow-prometheus.service",
    "alertmanager": "etc/systemd/system/airflow-alertmanager.service",
}
MIB = 2**20
MOST_MIB = 200
"""What both may have together."""
SECONDS = 170
"""Longer than a busy machine takes for any of the steps."""
OPTIONS: dict[str, Any] = {
    "monitoring_target": "http://127.0.0.1:8081",
    "monitoring_host": "atd-data03",
    "monitoring_environment": "production",
    "monitoring_secrets": {
        "metrics_token": TOKEN,
        "slack_webhook_url": f"https://hooks.slack.example.org/services/{SLACK_SECRET}",
    },
    "monitoring_proxies": {},
    "monitoring_extra_ca_bundle": "",
    "monitoring_project": str(ROOT),
    "monitoring_templates": str(ROOT / "templates"),
}
PROXIES = {"http_proxy": "http://one.example.org:3128", "https_proxy": "http://two.example.org:3128"}
CASES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "TLS": {"monitoring_target": "https://status.example.org"},
    "no secrets": {"monitoring_secrets": {"metrics_token": "", "slack_webhook_url": ""}},
    "an authority": {"monitoring_extra_ca_bundle": "/etc/ssl/certs/ca-certificates.crt"},
    "a proxy": {"monitoring_proxies": {**PROXIES, "no_proxy": "example.com,slack.example.orgs,127.0.0.1"}},
    "a proxy, not for the host": {
        "monitoring_proxies": {**PROXIES, "no_proxy": "a, hooks.slack.example.org"}
    },
    "a proxy, not for the domain": {"monitoring_proxies": {**PROXIES, "no_proxy": ".example.org,b"}},
    "a proxy for nothing": {"monitoring_proxies": {**PROXIES, "no_proxy": "*"}},
}
Rendered = dict[str, str]


@dataclass
class Running:
    """A program that runs as its unit has it, but with files of the test."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def get(self, path: str) -> Any:
        """Return what it answers, None while it starts."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            answer = httpx.get(f"{self.address}{path}", trust_env=False, timeout=SECONDS)
        except httpx.ConnectError:
            return None
        return answer.json() if answer.status_code == httpx.codes.OK else None

    def memory(self) -> int:
        """Return its memory without pages of files, which the kernel takes back, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [kib] = re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kib) * 1024


def rendering(folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, Rendered]:
    """Return the role's files by case and name, rendered by Ansible."""
    sources = [f"{ROOT}/templates/{path}.j2" for path in FILES.values()]
    play = {
        "name": "Render",
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [f"{ROOT}/roles/monitoring/{kind}/main.yml" for kind in ("defaults", "vars")],
        "tasks": [
            {
                "name": f"Render {case}",
                "ansible.builtin.copy": {
                    "content": f"{{{{ query('ansible.builtin.template', *{sources}) | to_json }}}}",
                    "dest": str(folder / f"{number}.json"),
                    "mode": "0600",
                },
                "vars": {**OPTIONS, **given},
            }
            for number, (case, given) in enumerate(cases.items())
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    run = ansible("ansible-playbook", "--inventory=localhost,", str(folder / "play.yml"))
    assert run.returncode == 0, run.stdout + run.stderr
    return {
        case: dict(zip(FILES, json.loads((folder / f"{number}.json").read_text()), strict=True))
        for number, case in enumerate(cases)
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rendered]:
    return rendering(tmp_path_factory.mktemp("rendered"), CASES)


@pytest.fixture(scope="module")
def amtool() -> str:
    return program("amtool")


def slack_configuration(text: str) -> dict[str, Any] | None:
    """Return how Alertmanager reaches Slack, None if it does not."""
    receivers = {one["name"]: one for one in yaml.safe_load(text)["receivers"]}
    found = receivers["Slack"].get("slack_configs")
    return found[0] if found else None


def command(unit: str) -> list[str]:
    """Return what a unit starts."""
    [found] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    return shlex.split(found.replace("\\\n", " "))


def variables(unit: str) -> dict[str, str]:
    """Return what a unit puts into the environment."""
    found = re.findall(r"^Environment=(.*)$", unit, re.MULTILINE)
    return dict(one.split("=", 1) for line in found for one in shlex.split(line))


@pytest.mark.parametrize("case", CASES)
def test_configuration_is_valid(
    files: dict[str, Rendered], promtool: Promtool, tmp_path: Path, case: str
) -> None:
    """By the check that the role makes before it puts the file in place."""
    (tmp_path / "prometheus.yml").write_text(files[case]["prometheus.yml"])
    done = promtool("check", "config", "--syntax-only", str(tmp_path / "prometheus.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_configuration_of_alertmanager_is_valid(
    files: dict[str, Rendered], amtool: str, tmp_path: Path, case: str
) -> None:
    (tmp_path / "alertmanager.yml").write_text(files[case]["alertmanager.yml"])
    done = subprocess.run(
        [amtool, "check-config", str(tmp_path / "alertmanager.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_no_readable_file_has_a_secret(files: dict[str, Rendered], case: str) -> None:
    """Everybody may read them; systemd passes each secret to one service."""
    text = "".join(files[case].values())
    assert TOKEN not in text
    assert SLACK_SECRET not in text
    assert "LoadCredential=token:" in files[case]["prometheus"]
    assert "LoadCredential=slack_url:" in files[case]["alertmanager"]


@pytest.mark.parametrize("case", CASES)
def test_only_this_host_reaches_them(files: dict[str, Rendered], case: str) -> None:
    """Alertmanager would by default listen for others of its kind on all addresses."""
    for name in ("prometheus", "alertmanager"):
        listens = [word for word in command(files[case][name]) if "listen-address" in word]
        assert listens
        for word in listens:
            assert re.fullmatch(r"--web\.listen-address=127\.0\.0\.1:\d+|--cluster\.listen-address=", word)
    assert "--cluster.listen-address=" in command(files[case]["alertmanager"])


@pytest.mark.parametrize(
    ("case", "scheme", "target"),
    [("as it is", "http", "127.0.0.1:8081"), ("TLS", "https", "status.example.org")],
)
def test_status_page_is_read(files: dict[str, Rendered], case: str, scheme: str, target: str) -> None:
    [job] = yaml.safe_load(files[case]["prometheus.yml"])["scrape_configs"]
    assert job["scheme"] == scheme
    assert job["static_configs"] == [{"targets": [target], "labels": {"instance": "atd-data03"}}]
    assert job["authorization"] == {"credentials_file": "/run/credentials/airflow-prometheus.service/token"}


def test_vault_without_secrets_needs_neither(files: dict[str, Rendered]) -> None:
    [job] = yaml.safe_load(files["no secrets"]["prometheus.yml"])["scrape_configs"]
    assert "authorization" not in job
    assert slack_configuration(files["no secrets"]["alertmanager.yml"]) is None


@pytest.mark.parametrize(
    ("case", "proxy"),
    [
        ("as it is", None),
        ("a proxy", PROXIES["https_proxy"]),
        ("a proxy, not for the host", None),
        ("a proxy, not for the domain", None),
        ("a proxy for nothing", None),
    ],
)
def test_slack_is_reached_by_the_proxy(files: dict[str, Rendered], case: str, proxy: str | None) -> None:
    found = slack_configuration(files[case]["alertmanager.yml"])
    assert found is not None
    assert found.get("http_config", {}).get("proxy_url") == proxy


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_authorities_of_the_network_are_trusted(files: dict[str, Rendered], name: str) -> None:
    given = {case: variables(rendered[name]).get("SSL_CERT_FILE") for case, rendered in files.items()}
    assert given == {
        case: "/etc/airflow-monitoring/authorities.pem" if case == "an authority" else None for case in CASES
    }


def test_memory_of_both_has_a_limit(files: dict[str, Rendered]) -> None:
    units = [files["as it is"][name] for name in ("prometheus", "alertmanager")]
    limits = [int(re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)[0]) for unit in units]
    assert sum(limits) == MOST_MIB
    for unit, limit in zip(units, limits, strict=True):
        assert int(variables(unit)["GOMEMLIMIT"].removesuffix("MiB")) < limit


def test_rules_without_a_light_are_the_two_that_slack_gets() -> None:
    """All others carry the label by which Alertmanager leaves them to the checker."""
    [group] = yaml.safe_load((ROOT / "monitoring/rules.yml").read_text(encoding="utf-8"))["groups"]
    lit = {rule["alert"]: re.findall(r'light="([^"]+)"', rule["expr"]) for rule in group["rules"]}
    assert {name for name, lights in lit.items() if not lights} == {
        "AirflowMetricsAbsent",
        "AirflowCheckerSilent",
    }
    assert {light for lights in lit.values() for light in lights} <= set(LIGHTS)


@contextmanager
def running(
    text: str, configuration: dict[str, Any], secrets: Iterable[Path], folder: Path
) -> Iterator[Running]:
    """Run what a unit starts, with another configuration and other places for files."""
    words = command(text)
    [address] = [
        word.partition("=")[2] for word in words if word.startswith("--web.listen-address=127.0.0.1:")
    ]
    name = Path(words[0]).name
    (folder / f"{name}.yml").write_text(yaml.safe_dump(configuration))
    places = {"--config.file": folder / f"{name}.yml"}
    places |= dict.fromkeys(("--storage.tsdb.path", "--storage.path"), folder / f"{name}-data")
    started = [program(name)]
    for word in words[1:]:
        option, _, value = word.partition("=")
        started.append(f"{option}={places.get(option, value)}")
    for secret in secrets:
        assert secret.read_text() not in " ".join(started)
    log = folder / f"{name}.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            started,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables(text)},
        ) as process,
    ):
        try:
            yield Running(process, f"http://{address}", log)
        finally:
            process.kill()


def wait_for(what: str, condition: Callable[[], Any], *shown: Running) -> Any:
    """Wait until a condition is true, and return what it was."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: " + "".join(one.log.read_text() for one in shown)
        time.sleep(0.1)
    return found


def alertmanager_as_rendered(text: str, secret: Path) -> dict[str, Any]:
    """Return Alertmanager's configuration with the address in another file, and without its patience."""
    hasty = re.sub(r"(group_wait|group_interval): \S+", r"\1: 1s", text)
    place = "/run/credentials/airflow-alertmanager.service/slack_url"
    assert place in hasty
    found: dict[str, Any] = yaml.safe_load(hasty.replace(place, str(secret)))
    return found


def test_alert_becomes_one_message_and_its_end_another(app: Flask, tmp_path: Path) -> None:
    """A real Prometheus reads a page that goes away and comes back, a real Alertmanager tells Slack.

    The checker tells of the lights that were lit before: no message comes of these.
    """
    away: list[str] = []
    health = app.extensions["webhook"].settings.health_file

    def page(environ: Any, start_response: Any) -> Any:
        # As the checker does every 30 seconds.
        health.write_text(json.dumps(document(**bad_day())))
        if away:
            start_response("503 Service Unavailable", [])
            return [b""]
        return app(environ, start_response)

    secrets = {name: tmp_path / name for name in ("token", "slack_url")}
    with ExitStack() as stack:
        target = stack.enter_context(served(page))
        channel = stack.enter_context(served(slack.create_app()))
        values = {"metrics_token": TOKEN, "slack_webhook_url": f"{channel}/services/{SLACK_SECRET}"}
        for path, value in zip(secrets.values(), values.values(), strict=True):
            path.write_text(value)
        ports = {f"monitoring_{name}_port": free_port() for name in ("prometheus", "alertmanager")}
        case = {"monitoring_target": target, "monitoring_secrets": values, **ports}
        made = rendering(tmp_path, {"here": case})["here"]

        rules = (ROOT / "monitoring/rules.yml").read_text(encoding="utf-8")
        (tmp_path / "rules.yml").write_text(re.sub(r"\bfor: \d+s$", "for: 1s", rules, flags=re.MULTILINE))
        text = made["prometheus.yml"].replace("/etc/airflow-monitoring/", f"{tmp_path}/")
        text = text.replace("/run/credentials/airflow-prometheus.service/token", str(secrets["token"]))
        configuration = yaml.safe_load(text)
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}

        alertmanager = stack.enter_context(
            running(
                made["alertmanager"],
                alertmanager_as_rendered(made["alertmanager.yml"], secrets["slack_url"]),
                secrets.values(),
                tmp_path,
            )
        )
        prometheus = stack.enter_context(
            running(made["prometheus"], configuration, secrets.values(), tmp_path)
        )
        both = (prometheus, alertmanager)

        def messages() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = httpx.get(
                f"{channel}/messages", trust_env=False, timeout=SECONDS
            ).json()
            return found

        def receivers(name: str) -> list[str]:
            alerts = alertmanager.get("/api/v2/alerts") or []
            return [
                receiver["name"]
                for alert in alerts
                if alert["labels"]["alertname"] == name
                for receiver in alert["receivers"]
            ]

        lit = wait_for("lights reach Alertmanager", lambda: receivers("AirflowServiceDown"), *both)
        assert lit == ["the checker"]
        assert messages() == []
        away.append("now")
        wait_for("the alert reaches Slack", messages, *both)
        assert receivers("AirflowMetricsAbsent") == ["Slack"]
        away.clear()
        wait_for("its end reaches Slack", lambda: len(messages()) > 1, *both)
        told = [message["payload"]["attachments"][0] for message in messages()]
        used = sum(one.memory() for one in both)

    assert len(told) == 2
    began, ended = told
    assert began["title"] == ended["title"] == "Airflow platform production on atd-data03"
    assert began["text"].startswith(":red_circle: Prometheus cannot read the platform's metrics")
    assert "docs/when-something-is-wrong.md#watch-it-with-prometheus" in began["text"]
    assert ended["text"].startswith(":large_green_circle: Over: Prometheus cannot read")
    assert used < MOST_MIB * MIB


def test_log_of_alertmanager_has_no_address(files: dict[str, Rendered], tmp_path: Path) -> None:
    """It says why Slack was not reached, and the address is a secret. Here nobody listens at it."""
    secret = tmp_path / "slack_url"
    secret.write_text(f"http://127.0.0.1:{free_port()}/services/{SLACK_SECRET}")
    made = files["as it is"]
    port = free_port()
    unit = made["alertmanager"].replace("127.0.0.1:9093", f"127.0.0.1:{port}")
    configuration = alertmanager_as_rendered(made["alertmanager.yml"], secret)
    with running(unit, configuration, [secret], tmp_path) as alertmanager:
        wait_for("Alertmanager answers", lambda: alertmanager.get("/api/v2/status"), alertmanager)
        alert = {"labels": {"alertname": "AirflowMetricsAbsent", "job": "airflow"}}
        sent = httpx.post(f"{alertmanager.address}/api/v2/alerts", json=[alert], trust_env=False)
        assert sent.status_code == httpx.codes.OK
        wait_for("it fails to reach Slack", lambda: "refused" in alertmanager.log.read_text(), alertmanager)
    log = alertmanager.log.read_text()
    assert "secret-of-slack" not in log
    assert "<redacted>" in log
