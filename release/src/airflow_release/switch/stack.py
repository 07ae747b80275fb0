"""The platform's containers: stopped, started and asked how they are."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from airflow_release.core import images, services
from airflow_release.core.database import Database
from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host
from airflow_release.core.services import POSTGRES, WEBSERVER

UNIT = "airflow.service"
"""While it is active, every service should run: it starts them at boot, and stops them at shutdown."""


def stop(host: Host, *names: str, seconds: int = 30, project: Path | None = None) -> None:
    """Stop services; what does not end within `seconds` is killed. None are stopped where none is named."""
    if names:
        command = ("--profile=switch", "stop", f"--timeout={seconds}", *names)
        host.compose(*command, project=project, doing=f"stopping {', '.join(names)}")


def remove_others(host: Host, files: Path) -> None:
    """Remove the services that a release with these files has, and the platform's own files have not.

    Compose stops and removes only what is in the project that it is given: such a service would go on
    working, on a database and a queue that are not its release's.

    Raises:
        ReleaseError: one of the projects cannot be read, or a container stays.
    """
    others = sorted(services.read(host, files).names - services.read(host).names)
    if others:
        stop(host, *others, seconds=10, project=files)
        command = ("--profile=switch", "rm", "--force", *others)
        host.compose(*command, project=files, doing=f"removing {', '.join(others)}")


def ensure_database(host: Host) -> None:
    """Have Postgres run, on a platform that may be ill in every other way.

    Raises:
        ReleaseError: it does not get healthy.
    """
    if POSTGRES not in host.running():
        start(host, POSTGRES, seconds=600)


def launch(host: Host, *names: str) -> None:
    """Start services, or all, replace those whose definition changed, and have none wait for another."""
    host.compose(
        "up",
        "--detach",
        "--no-build",
        "--no-deps",
        *names,
        doing=f"starting {', '.join(names) or 'the stack'}",
    )


def start(
    host: Host, *names: str, seconds: int, project: Path | None = None, dependencies: bool = True
) -> None:
    """Start services, or all, replace those whose definition changed, and wait until they are healthy.

    Without `dependencies` what they depend on is left as it is, whatever `project` says of it.

    Raises:
        ReleaseError: one of them was not healthy within `seconds`; with the logs of those that are not.
    """
    try:
        host.compose(
            "up",
            "--detach",
            "--wait",
            f"--wait-timeout={seconds}",
            "--no-build",
            *([] if dependencies else ["--no-deps"]),
            *names,
            project=project,
            timeout=seconds + 120,
            doing=f"starting {', '.join(names) or 'the stack'}",
        )
    except ReleaseError as error:
        raise ReleaseError(str(error), error.log + _logs(host)) from error


def try_to_start(host: Host, *names: str, seconds: int) -> None:
    """Start services, or all; one that is ill or cannot be started keeps none of the others away."""
    try:
        start(host, *names, seconds=seconds, dependencies=not names)
    except ReleaseError:
        for name in names or services.read(host).wanted:
            # What stays away is for the caller to look at.
            with contextlib.suppress(ReleaseError):
                launch(host, name)


def missing(host: Host) -> list[str]:
    """Return the services that should run and do not."""
    return sorted(set(services.read(host).wanted) - set(host.running()))


def resume(host: Host, names: Sequence[str]) -> list[str]:
    """Start services as they last ran, in order of dependency; return in words which cannot be started.

    Containers of another definition are not replaced, and nothing is pulled: a `site.yml` that ended halfway
    must not keep the host from coming back.
    """
    up = ("up", "--detach", "--no-build", "--pull=never", "--no-recreate")
    try:
        host.compose(*up, *names, doing=f"starting {', '.join(names)}")
    except ReleaseError:
        problems = []
        # One that cannot be started keeps none of the others away.
        for name in names:
            try:
                host.compose(*up, "--no-deps", name, doing=f"starting {name}")
            except ReleaseError as error:
                problems.append(": ".join([str(error), *error.log.strip().splitlines()[-1:]]))
        return problems
    return []


def own(host: Host) -> None:
    """Have systemd keep the stack running from now on, also where `stop.yml` had stopped it.

    Raises:
        ReleaseError: systemd cannot be asked, or the unit is not there.
    """
    host.run(["systemctl", "enable", "--now", UNIT], doing=f"enabling {UNIT}")


def ill(host: Host) -> dict[str, str]:
    """Return the services that do not run or are not healthy, each with a sentence that says so."""
    running = host.running()
    wanted = services.read(host).wanted
    absent = {name: f"{name} does not run" for name in wanted if name not in running}
    unhealthy = {
        name: f"{name} is {health}"
        for name, health in sorted(running.items())
        if health not in ("healthy", "")
    }
    return {**absent, **unhealthy}


def problems(host: Host, ignore: Collection[str] = ()) -> list[str]:
    """Return what keeps the platform from being healthy, each in words; [] when it is well.

    How the services in `ignore` are is not looked at.
    """
    found = [text for name, text in ill(host).items() if name not in ignore]
    if WEBSERVER in host.running():
        try:
            found += _airflow_problems(_ask(host, "/health"))
        except (ReleaseError, ValueError) as error:
            found.append(f"Airflow does not answer: {error}")
    return found


def pending_migrations(host: Host) -> list[str]:
    """Return in words that the database's schema is not that of the running Airflow; [] when it is."""
    environment = host.environment()
    needed = images.schemas(host, environment["AIRFLOW_IMAGE"], "--heads")
    found = Database(host).revision()
    if {found} == needed:
        return []
    return [
        f"a migration is pending: the database has the schema {found or 'none'}, and Airflow "
        f"{environment['AIRFLOW_VERSION']} needs {', '.join(sorted(needed))}"
    ]


def verify(host: Host, version: str, seconds: float, ignore: Collection[str] = ()) -> None:
    """Wait until all but `ignore` is healthy and check that everything of Airflow's image is of that version.

    Raises:
        ReleaseError: it was not so within `seconds`; with the logs of what is not healthy.
    """
    deadline = time.monotonic() + seconds
    while found := problems(host, ignore):
        if time.monotonic() > deadline:
            raise ReleaseError(f"The platform is not healthy: {'; '.join(found)}.", _logs(host))
        time.sleep(1)  # heartbeats come every few seconds
    answered = _ask(host, "/api/v1/version")["version"]
    if answered != version:
        raise ReleaseError(f"The webserver is of version {answered}, not {version}.")
    wanted = host.environment()["AIRFLOW_IMAGE"]
    running = dict(
        line.split(" ", 1)
        for line in host.compose(
            "ps", "--format", "{{.Service}} {{.Image}}", doing="looking at the images"
        ).splitlines()
    )
    expected = [name for name in services.read(host).of_image(wanted) if name not in ignore]
    others = [f"{name} ({running.get(name)})" for name in expected if running.get(name) != wanted]
    if others:
        raise ReleaseError(f"Not on {wanted}: {', '.join(others)}.")


def _ask(host: Host, path: str) -> dict[str, Any]:
    answer = host.compose(
        "exec",
        "--no-TTY",
        WEBSERVER,
        "curl",
        "--silent",
        "--fail",
        "--max-time",
        "10",
        f"http://localhost:8080{path}",
        doing=f"asking the webserver for {path}",
    )
    return dict(json.loads(answer))


def _airflow_problems(health: dict[str, Any]) -> list[str]:
    """Read Airflow's health report; a component that this version or configuration has not says null."""
    states = {name: (component or {}).get("status") for name, component in health.items()}
    return [
        f"Airflow's {name} is {state}" for name, state in states.items() if state not in ("healthy", None)
    ]


def _logs(host: Host) -> str:
    """Return the last lines of what runs but is not healthy, or has ended."""
    states = host.compose(
        "--profile=switch",
        "ps",
        "--all",
        "--format",
        "{{.Service}} {{.State}} {{.Health}}",
        doing="looking for causes",
    )
    ill = [line.split()[0] for line in states.splitlines() if not line.endswith((" healthy", " running "))]
    return "\n".join(
        f"\n--- {name}\n{host.compose('--profile=switch', 'logs', '--no-color', '--tail=60', name)}"
        for name in ill
    )
