"""The Prometheus and Alertmanager of `monitoring: true`, from nothing to running and off again.

Two packages and six runs of site.yml: about ten minutes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import wait_for
from canaries import misplaced, search
from expected import DIRECTORY
from long_tests import when_asked
from operator_commands import playbook
from testinfra.host import Host

pytestmark = when_asked

PROMETHEUS, ALERTMANAGER = "airflow-prometheus.service", "airflow-alertmanager.service"
UNITS = (PROMETHEUS, ALERTMANAGER)
OF_DEBIAN = ("prometheus.service", "prometheus-alertmanager.service")
ADDRESSES = {PROMETHEUS: "http://127.0.0.1:9090", ALERTMANAGER: "http://127.0.0.1:9093"}
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
CONFIGURATION = "/etc/airflow-monitoring"
MOST_MIB = 200
"""What both may have together."""
MOST_EXPOSED = 2.0
"""Of 10; the same as in test_exposure.py, which runs when there are no such units."""
SITE_SECONDS = 1200


def site(monitoring: str, *options: str) -> str:
    return playbook("site.yml", f"--extra-vars=monitoring={monitoring}", *options, seconds=SITE_SECONDS)


def changes(output: str) -> int:
    """Return how many tasks of the run changed something."""
    return sum(int(count) for count in re.findall(r"\bchanged=(\d+)", output))


@pytest.fixture(scope="module")
def bare_check() -> str:
    """What `--check` says while nothing of it is installed."""
    return site("true", "--check")


@pytest.fixture(scope="module", autouse=True)
def monitoring(host: Host, bare_check: str) -> Iterator[None]:
    """Both run. The last test switches them off; if it was not reached, this does."""
    site("true")
    yield
    if host.file(CONFIGURATION).exists:
        site("false")
    host.check_output("rm --recursive --force /var/lib/private/airflow-prometheus")


def ask(host: Host, unit: str, path: str) -> Any:
    """Return what a program answers on the host, by the host's own Python."""
    return json.loads(host.check_output("python3 -c %s %s", READ, ADDRESSES[unit] + path))


def test_check_on_a_host_without_it_says_what_it_would_do(bare_check: str) -> None:
    assert changes(bare_check) > 0


@pytest.mark.parametrize("unit", UNITS)
def test_unit_runs_and_starts_with_the_platform(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled
    wanted = host.check_output("systemctl show --property=WantedBy --property=PartOf --value %s", unit)
    assert set(wanted.split()) == {"airflow.service"}


@pytest.mark.parametrize("unit", OF_DEBIAN)
def test_unit_of_debian_cannot_start(host: Host, unit: str) -> None:
    """It listens on every address of the host."""
    assert host.check_output("systemctl show --property=LoadState --value %s", unit) == "masked"


def test_only_the_host_itself_reaches_them(host: Host) -> None:
    sockets = host.check_output("ss --no-header --listening --tcp --udp --numeric --processes")
    own = [line.split()[4] for line in sockets.splitlines() if '"prometheus' in line]
    assert sorted(own) == ["127.0.0.1:9090", "127.0.0.1:9093"]


@pytest.mark.parametrize("unit", UNITS)
def test_unit_has_what_it_needs_and_no_more(host: Host, unit: str) -> None:
    answer = host.check_output("systemd-analyze security --no-pager %s", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", answer)
    assert found, answer[-500:]
    assert float(found[1]) <= MOST_EXPOSED, answer


def test_metrics_are_read_with_the_token(host: Host) -> None:
    def health() -> list[str]:
        return [
            target["health"] for target in ask(host, PROMETHEUS, "/api/v1/targets")["data"]["activeTargets"]
        ]

    wait_for("Prometheus to read the metrics", lambda: health() == ["up"], 90)
    answer = ask(host, PROMETHEUS, "/api/v1/query?query=airflow_platform_health")
    [sample] = answer["data"]["result"]
    assert sample["metric"]["job"] == "airflow"


def test_prometheus_tells_alertmanager(host: Host) -> None:
    found = ask(host, PROMETHEUS, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [one["url"] for one in found] == ["http://127.0.0.1:9093/api/v2/alerts"]
    rules = ask(host, PROMETHEUS, "/api/v1/rules")["data"]["groups"][0]["rules"]
    assert {"AirflowMetricsAbsent", "AirflowServiceDown"} <= {rule["name"] for rule in rules}


def test_memory_of_both_is_within_its_limit(host: Host) -> None:
    """What the kernel counts for either unit, with its files in memory, which is at most what it may have."""
    used, limits = [], []
    for unit in UNITS:
        shown = host.check_output("systemctl show --property=MemoryCurrent --property=MemoryMax %s", unit)
        values = dict(line.split("=", 1) for line in shown.splitlines())
        used.append(int(values["MemoryCurrent"]))
        limits.append(int(values["MemoryMax"]))
        assert host.check_output("systemctl show --property=NRestarts --value %s", unit) == "0"
    assert sum(limits) == MOST_MIB * 2**20
    assert sum(used) <= MOST_MIB * 2**20


def test_secrets_are_in_no_process_and_no_readable_file(host: Host) -> None:
    assert misplaced(search(host)) == {}
    for name in ("token", "slack_url"):
        file = host.file(f"{CONFIGURATION}/{name}")
        assert (file.user, file.group, oct(file.mode)) == ("root", "root", "0o600")
        assert file.size > 0


@pytest.mark.parametrize(("unit", "secret"), [(PROMETHEUS, "slack_url"), (ALERTMANAGER, "token")])
def test_program_gets_no_secret_of_the_other(host: Host, unit: str, secret: str) -> None:
    assert not host.file(f"/run/credentials/{unit}/{secret}").exists


def test_checker_finds_nothing_wrong_with_the_files(host: Host) -> None:
    host.check_output("systemctl start airflow-checker.service")
    findings = json.loads(host.file(f"{DIRECTORY}/status/health.json").content_string)["findings"]
    assert [one for one in findings if one["id"] in ("files-differ", "unit-failed")] == []


def test_second_run_changes_nothing(host: Host) -> None:
    started = host.check_output("systemctl show --property=ExecMainStartTimestamp %s %s", *UNITS)
    assert changes(site("true")) == 0
    assert host.check_output("systemctl show --property=ExecMainStartTimestamp %s %s", *UNITS) == started


def test_change_of_the_configuration_is_read_without_a_restart(host: Host) -> None:
    identity = host.check_output("systemctl show --property=MainPID --value %s", PROMETHEUS)
    site("true", "--extra-vars=prometheus_scrape_seconds=15")
    wait_for(
        "Prometheus to read its configuration",
        lambda: "scrape_interval: 15s" in ask(host, PROMETHEUS, "/api/v1/status/config")["data"]["yaml"],
        30,
    )
    assert host.check_output("systemctl show --property=MainPID --value %s", PROMETHEUS) == identity


def test_switched_off_it_keeps_what_was_recorded(host: Host) -> None:
    output = site("false")
    assert "apt-get purge prometheus prometheus-alertmanager" in output
    for unit in UNITS:
        assert host.check_output("systemctl show --property=LoadState --value %s", unit) == "not-found"
    assert not host.file(CONFIGURATION).exists
    assert host.file("/var/lib/private/airflow-prometheus/wal").is_directory
    assert host.package("prometheus").is_installed
    assert changes(site("false")) == 0
