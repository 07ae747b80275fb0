"""The services that the host's systemd runs: what systemd itself says about their units."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_checker.gather.host import STOPPING
from airflow_checker.settings import Settings
from airflow_release.certificate.commands import DROPPED, SERVED
from airflow_release.clean.logs import CONTAINERS

from tests.missing import missing, needs
from tests.policy.conftest import ROOT, TEMPLATES, Rendered, load
from tests.releases import NEWEST

DOCKER_UNITS = [
    "airflow.service",
    "airflow-backup.service",
    "airflow-certificate.service",
    "airflow-clean.service",
    "airflow-release.service",
]
SERVICES = sorted(path.removesuffix(".j2") for path in TEMPLATES if path.endswith(".service.j2"))
MOST = 2.0
"""How exposed a service of the host may be, of 10, by systemd-analyze: it gets what it needs."""


def systemd_is_here() -> bool:
    """Tell whether systemd-analyze can judge a file; Molecule judges the running services anyway."""
    if not shutil.which("systemd-analyze"):
        return False
    help_text = subprocess.run(
        ["systemd-analyze", "--help"], capture_output=True, text=True, check=False
    ).stdout
    return "--offline" in help_text


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_hardened(rendered: dict[str, Rendered], tmp_path: Path, service: str) -> None:
    """Directives that contradict or misspell each other count for nothing here."""
    if not systemd_is_here():
        missing("no systemd-analyze with --offline on this machine")
    path = tmp_path / Path(service).name
    path.write_text(rendered[f"registry {NEWEST}"][service])
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={MOST * 10:g}",
        str(path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Overall exposure level" in run.stdout


def unit_text(name: str) -> str:
    return (ROOT / f"templates/etc/systemd/system/{name}.j2").read_text(encoding="utf-8")


def settings(unit: str, name: str) -> list[str]:
    """Return the values that a unit's template has for a setting."""
    return re.findall(rf"^{name}=(.*)$", unit_text(unit), re.MULTILINE)


def setting(unit: str, name: str) -> str:
    """Return the one value that a unit's template has for a setting."""
    [value] = settings(unit, name)
    return value


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
    touch, command = settings("airflow.service", "ExecStop")
    stop = command.split()
    assert stop[-1] == "stop"
    assert not [word for word in stop if word.startswith("--timeout")]
    # By this the checker tells a shutdown from a power cut; where it fails, the stack is stopped, too.
    assert touch == f"-/usr/bin/touch {{{{ airflow_release_directory }}}}/{STOPPING}"


def test_sandbox_keeps_nobody_from_stopping_the_stack() -> None:
    """systemd runs ExecStop= in the sandbox, too, and does not run it where that cannot be made any more.

    PrivateTmp= needs a directory below the host's /tmp, which somebody may have emptied since the start.
    """
    assert settings("airflow.service", "PrivateTmp") == []
    writable = setting("airflow.service", "ReadWritePaths")
    assert writable == f"-{{{{ airflow_release_directory }}}}/{Path(STOPPING).parent}"


@pytest.mark.parametrize("call", ["adjtimex", "clock_adjtime"])
def test_checker_may_ask_for_the_state_of_the_clock(call: str) -> None:
    """adjtimex(3) calls one or the other: the second since version 2.32 of the C library."""
    assert call in settings("airflow-checker.service", "SystemCallFilter")[-1].split()


@pytest.mark.parametrize("unit", ["airflow.service", "airflow-release.service", "airflow-backup.service"])
def test_service_reads_the_login_of_a_registry(unit: str) -> None:
    """Docker's command fails where it may not look into root's home, and knows no login if that is empty."""
    assert settings(unit, "ProtectHome") in ([], ["read-only"])


CERTIFICATE_OF = (99, 0)
"""HAProxy's user in its image, and the group by which the checker reads the file (roles/haproxy)."""

as_root = needs("setpriv", root=True)


def with_the_rights_of(unit: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as root with the capabilities that a unit has, and no others."""
    names = setting(unit, "CapabilityBoundingSet").lower().replace("cap_", "+").split()
    rights = f"--bounding-set={','.join(['-all', *names])}"
    return subprocess.run(
        ["setpriv", rights, "--inh-caps=-all", "--no-new-privs", *command],
        capture_output=True,
        text=True,
        check=False,
    )


@as_root
def test_switch_may_replace_the_files_of_a_release(tmp_path: Path) -> None:
    """One of them is HAProxy's, and neither the old nor the new one is root's to read or to give away."""
    for folder in ("next", "live"):
        file = tmp_path / folder / "haproxy/of-haproxy"
        file.parent.mkdir(parents=True)
        file.write_text(folder)
        os.chown(file, *CERTIFICATE_OF)
        file.chmod(0o400)
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'release/src')!r})\n"
        "from pathlib import Path\n"
        "from airflow_release.switch.release_files import install\n"
        f"install(Path({str(tmp_path / 'next')!r}), Path({str(tmp_path / 'live')!r}))"
    )
    run = with_the_rights_of("airflow-release.service", sys.executable, "-c", program)
    assert run.returncode == 0, run.stderr
    assert file.read_text() == "next"
    assert (file.stat().st_uid, file.stat().st_gid) == CERTIFICATE_OF


@as_root
def test_certificate_may_be_replaced(tmp_path: Path) -> None:
    """By the unit for dropped ones: it reads the old one by its group and gives the new one to HAProxy."""
    file = tmp_path / "certificate.pem"
    file.write_text("old")
    os.chown(file, *CERTIFICATE_OF)
    file.chmod(0o440)
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'release/src')!r})\n"
        "from pathlib import Path\n"
        "from airflow_release.certificate.commands import _replace\n"
        f"_replace(Path({str(file)!r}), b'new')"
    )
    run = with_the_rights_of("airflow-certificate.service", sys.executable, "-c", program)
    assert run.returncode == 0, run.stderr
    assert file.read_text() == "new"
    assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (*CERTIFICATE_OF, 0o440)


def test_dropped_file_is_the_one_that_is_watched() -> None:
    """In a directory that the role makes, and that the unit may remove the file from."""
    place = f"{{{{ airflow_release_directory }}}}/{DROPPED}"
    assert setting("airflow-certificate.path", "PathChanged") == place
    directories = load(ROOT / "roles/airflow_release/vars/main.yml")["__airflow_release_directories"]
    assert {"path": place.rpartition("/")[0], "mode": "0700"} in directories
    writable = setting("airflow-certificate.service", "ReadWritePaths").split(
        "{{ airflow_release_directory }}"
    )
    assert {Path(DROPPED).parent.name, Path(SERVED).parent.name} <= {one.strip(" /") for one in writable}


@as_root
def test_checker_may_read_the_certificate(tmp_path: Path) -> None:
    """With the owner and the mode that the role gives it: the unit has no capability."""
    [certificate] = load(ROOT / "roles/haproxy/vars/main.yml")["__haproxy_certificate_files"]
    file = tmp_path / "certificate.pem"
    file.write_text("the certificate")
    os.chown(file, *CERTIFICATE_OF)
    file.chmod(int(certificate["mode"], 8))
    tmp_path.chmod(0o755)
    run = with_the_rights_of("airflow-checker.service", "cat", str(file))
    assert run.stdout == "the certificate", run.stderr


def test_memory_of_the_checker_has_a_place_while_the_disk_is_full() -> None:
    """One that is there until the host goes down, and not until the run ends."""
    unit, runtime = "airflow-checker.service", Settings().runtime
    assert (str(runtime.parent), setting(unit, "RuntimeDirectory")) == ("/run", runtime.name)
    assert setting(unit, "RuntimeDirectoryPreserve") == "yes"


def test_start_of_docker_never_fails_for_the_stack() -> None:
    """A Docker that waited for the unit, which waits for Docker, would never have started."""
    command = setting("docker.service.d/airflow.conf", "ExecStartPost")
    assert command == "-/usr/bin/systemctl --no-block reload airflow.service"


def test_switch_and_boot_do_not_start_containers_at_once() -> None:
    """`airflow-release up` looks at the journal, and a switch begins when that has ended."""
    assert "airflow.service" in setting("airflow-release.service", "After").split()


@pytest.mark.parametrize(
    "timer", [name.rpartition("/")[2] for name in TEMPLATES if name.endswith(".timer.j2")]
)
def test_what_a_timer_starts_comes_to_an_end(timer: str) -> None:
    """systemd waits for a oneshot for ever by default, and the timer waits with it.

    A backup takes the time that its database takes, and the checker tells of one that is overdue.
    """
    endless = setting(timer.replace(".timer.j2", ".service"), "TimeoutStartSec") == "infinity"
    assert endless is (timer == "airflow-backup.timer.j2")


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
    # Where it is not there, the unit runs all the same.
    assert f"-{CONTAINERS}" in setting("airflow-clean.service", "ReadWritePaths").split()


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
    [play] = [play for play in load(ROOT / "playbooks/stop.yml") if play["name"] == "Stop the platform"]
    [task] = [task for task in play["tasks"] if task["name"].startswith("Stop the stack")]
    unit = task["ansible.builtin.systemd_service"]
    assert unit == {"name": "airflow.service", "enabled": False, "state": "stopped"}
