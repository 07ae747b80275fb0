"""The host itself: units, disks, the clock, files, updates. Paths can be moved for a test by `root`."""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from airflow_checker import roles
from airflow_checker.facts import Disk, Service, Unit

Run = Callable[[Sequence[str], float], str]
"""Runs a command for at most so many seconds and returns what it printed."""

KEEPERS = ("airflow.service", "airflow-worker.service")
"""What keeps the platform running on the main host, and on a worker host; stop.yml disables it."""
STOPPING = "status/told-to-stop"
"""The file that this unit touches when it is told to stop, below the platform's directory."""
DOCKER = "docker.service"
DOCKER_UNITS = (DOCKER, "containerd.service")
UNITS = (
    *("airflow.service", "airflow-*.service", "airflow-*.timer", "airflow-*.path"),
    *("dag-sync.*", "smee-relay.service"),
)
"""Which files of /etc/systemd/system are the platform's units. Docker's own units are looked at, too."""
PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,UnitFileState,"
    "NextElapseUSecRealtime,NextElapseUSecMonotonic,LastTriggerUSec,NRestarts,ActiveEnterTimestamp"
)
_SPANS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPANS.update({"month": 2_629_800, "y": 31_557_600})
_SPAN = r"(\d{1,9}(?:\.\d{1,9})?)(us|ms|s|min|h|d|w|month|y)"
"""A span of time as systemd writes it (systemd.time(7))."""
RENDERED = (
    "docker-compose.yaml",
    ".env",
    "env/*.env",
    "haproxy/*.cfg",
    "haproxy/*.html",
    "docker-socket-proxy/*",
    "weather/*",
    "worker-gateway/haproxy.cfg",
    "tunnel/haproxy.cfg",
    "log-server/*",
    "log-copy/*",
    "release.json",
)
"""Which files below the platform's directory are rendered and only then change, as a certificate does not."""
ELSEWHERE = (
    "etc/airflow-checker/*",
    "etc/airflow-firewall/*",
    "etc/airflow-monitoring/*.yml",
    "etc/airflow-release/*",
    "etc/systemd/system/airflow-dags.slice",
    "etc/systemd/system/docker.service.d/airflow.conf",
    "etc/systemd/system/docker.service.d/airflow-worker.conf",
    "etc/systemd/system/docker.service.d/restart.conf",
    "usr/local/bin/airflow-checker",
    "usr/local/bin/airflow-release",
    "usr/local/bin/dag-sync",
)
"""Those outside of it that are no units. What else is there beside them may be an operator's own."""


def run(command: Sequence[str], timeout: float) -> str:
    """Run a command to its end; return what it printed.

    Raises:
        OSError: it cannot be run, fails, or does not end in time.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not end within {timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        raise OSError(
            lines[-1][:200] if lines else f"{command[0]} ended with code {error.returncode}"
        ) from None
    return done.stdout


def units(run: Run, folder: Path = Path("/etc/systemd/system")) -> list[Unit]:
    """Return the platform's units and Docker's, by one question to systemd.

    Raises:
        OSError: systemd does not answer.
    """
    found = {path.name for pattern in UNITS for path in folder.glob(pattern) if "@." not in path.name}
    names = sorted(found - {"airflow-checker.service"} | {*DOCKER_UNITS})
    return parse_units(run(["systemctl", "show", "--timestamp=unix", f"--property={PROPERTIES}", *names], 20))


def parse_units(text: str) -> list[Unit]:
    """Read what `systemctl show` says of several units: paragraphs of NAME=value."""
    found = []
    for paragraph in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if not values.get("Id") or values.get("LoadState") == "not-found":
            continue
        found.append(
            Unit(
                name=values["Id"],
                load=values.get("LoadState", ""),
                active=values.get("ActiveState", ""),
                sub=values.get("SubState", ""),
                result=values.get("Result", ""),
                enabled=values.get("UnitFileState", ""),
                next=moment(values.get("NextElapseUSecRealtime", ""))
                or after_boot(values.get("NextElapseUSecMonotonic", "")),
                last=moment(values.get("LastTriggerUSec", "")),
                started=moment(values.get("ActiveEnterTimestamp", "")),
                restarts=int(values["NRestarts"]) if values.get("NRestarts", "").isdigit() else 0,
            )
        )
    return found


def moment(text: str) -> float:
    """Return a time of systemd's in seconds since the epoch; 0 for none.

    Its form depends on systemd's version: `@1800000000`, or in words, in the zone that TZ names.
    """
    if re.fullmatch(r"@\d{1,12}", text, re.ASCII):
        return float(text[1:])
    found = re.fullmatch(r"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", text, re.ASCII)
    try:
        return float(calendar.timegm(time.strptime(found[1], "%Y-%m-%d %H:%M:%S"))) if found else 0.0
    except ValueError:
        return 0.0


def boot(process: Path = Path("/proc")) -> str:
    """Return what tells this boot from every other; "" where the kernel does not say it.

    A host that is a container shares the kernel's boot with others, and has a first process of its own.
    """
    try:
        kernel = (process / "sys/kernel/random/boot_id").read_text().strip()
        # starttime of proc(5); the name, which may have spaces, is before the last parenthesis.
        first = (process / "1/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{kernel} {first}"


def told_to_stop(directory: Path) -> float:
    """Return when the keeper's unit was last told to stop (ExecStop=), in seconds; 0 for never."""
    try:
        return (directory / STOPPING).stat().st_mtime
    except OSError:
        return 0.0


def after_boot(text: str) -> float:
    """Return a time that systemd counts from the host's start, such as `2h 3min 4.5s`, as `moment` does."""
    if not re.fullmatch(rf"{_SPAN}(?: {_SPAN})*", text, re.ASCII):
        return 0.0
    since = sum(float(number) * _SPANS[unit] for number, unit in re.findall(_SPAN, text, re.ASCII))
    return time.time() - time.monotonic() + since if since else 0.0


def stopped(units: Iterable[Unit]) -> bool:
    """Say whether the platform is stopped on purpose: for good, or because the host goes down."""
    return any(
        unit.name in KEEPERS
        and (unit.active == "deactivating" or (unit.active == "inactive" and unit.enabled == "disabled"))
        for unit in units
    )


def disks(paths: Iterable[Path]) -> list[Disk]:
    """Return the file systems of these paths, each once, under the first path that is on it."""
    found: dict[int, Disk] = {}
    for path in paths:
        try:
            device, space = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue
        found.setdefault(
            device,
            Disk(
                str(path),
                space.f_blocks * space.f_frsize,
                space.f_bavail * space.f_frsize,
                space.f_files,
                space.f_favail,
            ),
        )
    return list(found.values())


def clock_synchronised() -> bool | None:
    """Ask the kernel, as `timedatectl` does, whether its clock is synchronised; None if it does not say.

    See adjtimex(2).
    """
    import ctypes

    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
        # struct timex with `modes` 0, which changes nothing; 256 bytes are enough on every architecture.
        state = ask(ctypes.create_string_buffer(256))
    except (OSError, AttributeError):
        return None
    time_error = 5
    return None if state < 0 else bool(state != time_error)


def security_updates(run: Run) -> int:
    """Return how many packages have a security update, by a simulated upgrade, which changes nothing.

    Raises:
        OSError: apt-get cannot be run.
    """
    text = run(["apt-get", "--simulate", "--option=Debug::NoLocking=1", "--quiet", "dist-upgrade"], 120)
    return count_security(text)


def count_security(text: str) -> int:
    """Count the packages of a simulated upgrade that come from a security archive of Debian or Ubuntu."""
    return len(re.findall(r"^Inst .*\([^()]*(?:-security|Debian-Security)", text, re.MULTILINE))


def document(path: Path) -> dict[str, Any]:
    """Return a JSON file's object; {} when there is none or it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def environment(path: Path) -> dict[str, str]:
    """Read an env file: `NAME=value`, the value perhaps in single quotes; {} where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {
        name: value[1:-1] if len(value) > 1 and value[0] == value[-1] == "'" else value
        for name, value in pairs
    }


def recorded_version(directory: Path) -> str:
    """Return the Airflow version of the release that went live last, "" where none is recorded."""
    records = [document(path) for path in (directory / "releases/records").glob("*/release.json")]
    newest = max(records, key=lambda record: float(record.get("since") or 0), default={})
    return str(newest.get("airflow_version", ""))


def dag_commit(directory: Path) -> str:
    """Return the commit that the link `current` names (webhook/trees.py), "" where it is no repository's."""
    try:
        target = Path(os.readlink(directory / "trees/current"))
    except OSError:
        return ""
    found = re.fullmatch(r"([0-9a-f]{40})(?:-\d+)?", target.name)
    return found[1] if found and target.parent.name == "worktrees" else ""


def hashes(directory: Path, root: Path = Path("/")) -> dict[str, str]:
    """Return the SHA-256 of each rendered file, by its path."""
    paths = [path for pattern in RENDERED for path in directory.glob(pattern)]
    paths += [path for pattern in UNITS for path in (root / "etc/systemd/system").glob(pattern)]
    paths += [path for pattern in ELSEWHERE for path in root.glob(pattern)]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths) if path.is_file()
    }


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the files that were changed, added or removed."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))


def project(run: Run, directory: Path, profiles: Iterable[str] = ()) -> dict[str, Service]:
    """Return the services that the Compose project wants running: those of other profiles run when asked.

    Raises:
        OSError: Compose refuses the project.
        ValueError: its answer cannot be understood.
    """
    command = ["docker", "compose", "--project-directory", str(directory)]
    command += [f"--profile={profile}" for profile in profiles] + ["config", "--format", "json"]
    services = json.loads(run(command, 30))["services"]
    return {
        str(name): Service(str(one.get("image", "")), roles.role(str(name), one.get("labels") or {}))
        for name, one in services.items()
    }
