"""The services that the host's systemd runs: what systemd itself says about their units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.policy.conftest import ROOT, TEMPLATES, Rendered, load
from tests.releases import NEWEST

DOCKER_UNITS = [
    "airflow.service",
    "airflow-backup.service",
    "airflow-clean.service",
    "airflow-release.service",
]
UNITS = {
    "etc/systemd/system/smee-relay.service": 2.0,
    "etc/systemd/system/airflow-checker.service": 4.5,
    "etc/systemd/system/airflow-clean.service": 5.5,
}
"""How exposed each may be, of 10, by systemd-analyze: what listens to the internet gets what it needs."""


def systemd_is_here() -> bool:
    """Tell whether systemd-analyze can judge a file; Molecule judges the running service anyway."""
    if not shutil.which("systemd-analyze"):
        return False
    help_text = subprocess.run(
        ["systemd-analyze", "--help"], capture_output=True, text=True, check=False
    ).stdout
    return "--offline" in help_text


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_drawn(unit: str) -> None:
    """A unit that was renamed would otherwise be judged no more."""
    assert f"{unit}.j2" in TEMPLATES


def test_backup_has_the_time_that_it_takes() -> None:
    """Twelve hours were enough for most databases, and killed the copy of a larger one every night."""
    unit = (ROOT / "templates/etc/systemd/system/airflow-backup.service.j2").read_text(encoding="utf-8")
    assert "TimeoutStartSec=infinity" in unit.splitlines()


@pytest.mark.parametrize("unit", list(UNITS) if systemd_is_here() else [])
def test_service_is_hardened(rendered: dict[str, Rendered], tmp_path: Path, unit: str) -> None:
    """Directives that contradict or misspell each other count for nothing here."""
    path = tmp_path / Path(unit).name
    path.write_text(rendered[f"registry {NEWEST}"][unit])
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={UNITS[unit] * 10:g}",
        str(path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


def unit_text(name: str) -> str:
    return (ROOT / f"templates/etc/systemd/system/{name}.j2").read_text(encoding="utf-8")


def setting(unit: str, name: str) -> str:
    """Return the one value that a unit's template has for a setting."""
    [value] = re.findall(rf"^{name}=(.*)$", unit_text(unit), re.MULTILINE)
    return str(value)


@pytest.mark.parametrize("unit", DOCKER_UNITS)
def test_restart_of_docker_ends_no_operation(unit: str) -> None:
    """Under Requires= systemd stops the unit with Docker, and Restart=on-failure does not start it again."""
    text = unit_text(unit)
    assert not re.search(r"^(Requires|Requisite|BindsTo|PartOf)=", text, re.MULTILINE)
    assert re.search(r"^Wants=.*\bdocker\.service$", text, re.MULTILINE)
    assert re.search(r"^After=.*\bdocker\.service\b", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["ExecStart", "ExecReload"])
def test_unit_starts_what_should_run(command: str) -> None:
    """By the command that starts nothing during a switch, at boot and whenever Docker starts."""
    assert setting("airflow.service", command) == "/usr/local/bin/airflow-release up"


def test_unit_stays_active_and_stops_the_stack_at_shutdown() -> None:
    """Also where one service cannot be started, and with all the time that a service may take for its end."""
    assert setting("airflow.service", "RemainAfterExit") == "true"
    assert setting("airflow.service", "SuccessExitStatus") == "1"
    assert setting("airflow.service", "TimeoutStopSec") == "infinity"
    stop = setting("airflow.service", "ExecStop").split()
    assert stop[-1] == "stop"
    assert not [word for word in stop if word.startswith("--timeout")]


def test_start_of_docker_never_fails_for_the_stack() -> None:
    """A Docker that waited for the unit, which waits for Docker, would never have started."""
    command = setting("docker.service.d/airflow.conf", "ExecStartPost")
    assert command == "-/usr/bin/systemctl --no-block reload airflow.service"


def test_switch_and_boot_do_not_start_containers_at_once() -> None:
    """`airflow-release up` looks at the journal, and a switch begins when that has ended."""
    assert "airflow.service" in setting("airflow-release.service", "After").split()


@pytest.mark.parametrize(
    "unit", ["airflow.service", "airflow-release.service", "docker.service.d/restart.conf"]
)
def test_systemd_never_gives_up(unit: str) -> None:
    """By default it does after a few failures in a short time."""
    assert setting(unit, "StartLimitIntervalSec") == "0"


def test_backup_may_keep_refreshed_tokens() -> None:
    """rclone writes its copy of the configuration below `releases` (offhost.py)."""
    assert "{{ airflow_release_directory }}/releases " in setting("airflow-backup.service", "ReadWritePaths")


def test_clean_up_may_remove_logs() -> None:
    assert "{{ airflow_release_directory }}/logs" in setting("airflow-clean.service", "ReadWritePaths")
    assert "{{ airflow_release_directory }}/status" in setting("airflow-clean.service", "ReadWritePaths")


def test_history_goes_after_the_backup_that_has_it() -> None:
    """Where both are started at once, the clean-up waits; and it begins later in the day."""
    assert "airflow-backup.service" in setting("airflow-clean.service", "After").split()
    defaults = load(ROOT / "playbooks/group_vars/all/defaults.yml")
    assert defaults["backup_time"] < defaults["clean_time"]


def test_operation_under_way_is_no_failure_of_the_clean_up() -> None:
    """Code 1 says that; every other one is told by the checker."""
    assert setting("airflow-clean.service", "SuccessExitStatus") == "1"


def test_nothing_else_removes_logs_without_a_word() -> None:
    """The timer of systemd's own reads /etc/tmpfiles.d, and says nothing of what it removes."""
    assert not [path for path in TEMPLATES if path.startswith("etc/tmpfiles.d/")]
    assert "etc/airflow-release/tmpfiles.conf.j2" in TEMPLATES


def test_stop_outlives_a_boot() -> None:
    [play] = load(ROOT / "playbooks/stop.yml")
    [task] = [task for task in play["tasks"] if task["name"].startswith("Stop the stack")]
    unit = task["ansible.builtin.systemd_service"]
    assert unit == {"name": "airflow.service", "enabled": False, "state": "stopped"}


def test_destruction_leaves_no_unit() -> None:
    """What is left would start, at the next boot, what is gone. Docker stays, with what is its own."""
    [play] = load(ROOT / "playbooks/destroy.yml")
    removed = set(play["vars"]["__destroy_elsewhere"])
    rendered = {f"/{path.removesuffix('.j2')}" for path in TEMPLATES if path.startswith("etc/systemd/")}
    assert rendered - removed == {"/etc/systemd/system/docker.service.d/restart.conf"}
