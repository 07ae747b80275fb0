"""DockerOperators on the platform: what a refused one says in its log, and how a container is limited.

The tasks ask for what the operator did not list; each log names the setting that would allow it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import AirflowApi, wait_for
from expected import DIRECTORY, PROJECT
from faulty_host import Platform, with_dag_file
from testinfra.host import Host

DAG = "docker-operators"
CONTAINER = "docker-operators-of-tests"
# Prints its limit of processes, and ends well when it is stopped.
PROGRAM = """\
import pathlib, signal, sys
places = [pathlib.Path("/sys/fs/cgroup", place) for place in ("pids.max", "pids/pids.max")]
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("pids.max is", *[place.read_text().strip() for place in places if place.exists()], flush=True)
signal.alarm(150)
signal.pause()
"""
SOURCE = f'''\
import datetime

from airflow import DAG
from airflow.providers.docker.operators.docker import DockerOperator
from docker.types import Mount

IMAGE = "{{{{ var.value.weather_annotate_image }}}}"
REFUSED = {{
    "image": {{"image": "example/not-listed:1"}},
    "volume": {{"mounts": [Mount("/data", "{PROJECT}_postgres_data", type="volume")]}},
    "directory": {{"mounts": [Mount("/data", "/srv", type="bind")]}},
    "memory": {{"mem_limit": "1048577m"}},
    "privileged": {{"privileged": True}},
}}

with DAG("{DAG}", start_date=datetime.datetime(2024, 1, 1), schedule=None, default_args={{"retries": 0}}):
    for name, options in REFUSED.items():
        DockerOperator(**{{"task_id": name, "image": IMAGE, "mount_tmp_dir": False, **options}})
    DockerOperator(
        task_id="limited",
        image=IMAGE,
        container_name="{CONTAINER}",
        entrypoint=["python3", "-c"],
        command=[{PROGRAM!r}],
        auto_remove="success",
        mount_tmp_dir=False,
    )
'''
SENTENCES = {
    "image": (
        'DAGs may not use the image "docker.io/example/not-listed:1": '
        "no pattern of dag_container_images in the inventory matches it"
    ),
    "volume": (
        f'DAGs may not mount the volume "{PROJECT}_postgres_data": '
        "it is not in dag_container_volumes of the inventory"
    ),
    "directory": (
        'DAGs may not mount "/srv" of the host; '
        "use a volume that dag_container_volumes of the inventory lists"
    ),
    "memory": "dag_container_memory_mib in the inventory sets the limit",
    "privileged": "HostConfig.Privileged: DAGs may not set this; no setting of the inventory allows it",
}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def settings_of_the_filter(host: Host) -> Json:
    """What the inventory allows, as the filter reads it."""
    found: Json = json.loads(host.file(f"{DIRECTORY}/docker-socket-proxy/policy.json").content_string)
    return found


@pytest.fixture(scope="module")
def ran(host: Host, airflow: AirflowApi) -> Iterator[Json]:
    """A run of the DAG: states and logs of its tasks, and what was seen of its container while it ran."""
    platform = Platform(host, airflow)

    def running() -> Json | None:
        result = host.run("docker inspect %s", CONTAINER)
        [found] = json.loads(result.stdout) if result.rc == 0 else [{"State": {"Running": False}}]
        return found if found["State"]["Running"] else None

    with with_dag_file(platform, DAG, SOURCE), airflow.released(DAG):
        run = airflow.call("POST", f"dags/{DAG}/dagRuns", json={})["dag_run_id"]
        try:
            container: Json = wait_for("the container to run", running, 120)
            cgroups = platform.check(f"cat /proc/{container['State']['Pid']}/cgroup")
            # What it prints is there as soon as it runs, or a moment later.
            wait_for("its first line", lambda: platform.check("docker logs %s 2>&1", CONTAINER), 30)
        finally:
            host.run("docker stop %s", CONTAINER)
        tasks, logs = airflow.tasks_and_logs(DAG, run)
    yield {
        "states": {task["task_id"]: task["state"] for task in tasks},
        "logs": logs,
        "container": container,
        "cgroups": cgroups,
    }
    host.run("docker rm --force %s", CONTAINER)


@pytest.mark.parametrize("task", SENTENCES)
def test_refused_task_says_which_setting_allows_it(ran: Json, task: str) -> None:
    """In the log that Airflow shows: the DAG's author has no other to look at."""
    assert ran["states"][task] == "failed"
    assert SENTENCES[task] in ran["logs"][task]


def test_allowed_task_succeeds_beside_them(ran: Json) -> None:
    """The refusals are the filter's, and not those of a Docker that is away."""
    assert ran["states"]["limited"] == "success", ran["logs"]["limited"]


def test_container_of_a_task_has_its_limit_of_processes(
    ran: Json, host: Host, settings_of_the_filter: Json
) -> None:
    """As Docker says it, and as the kernel keeps it: seen from inside, in the task's log."""
    if host.check_output("docker info --format %s", "{{.PidsLimit}}").strip() != "true":
        pytest.skip("this kernel limits no processes")
    limit = settings_of_the_filter["pids"]
    assert ran["container"]["HostConfig"]["PidsLimit"] == limit
    assert re.findall(r"pids\.max is (\w+)", ran["logs"]["limited"]) == [str(limit)]


def test_container_of_a_task_is_in_the_slice_of_dags(
    ran: Json, host: Host, settings_of_the_filter: Json
) -> None:
    """Where systemd makes Docker's cgroups; elsewhere in Docker's own place."""
    container = ran["container"]
    parent = settings_of_the_filter["cgroup_parent"]
    assert container["HostConfig"]["CgroupParent"] == parent
    lines = [line.split(":", 2) for line in ran["cgroups"].splitlines()]
    # With the first version of cgroups each controller has a line; with the second there is one, of no name.
    [path] = [path for _, names, path in lines if "pids" in names.split(",")] or [
        path for _, names, path in lines if not names
    ]
    *parents, own = path.split("/")
    assert container["Id"] in own
    driver = host.check_output("docker info --format %s", "{{.CgroupDriver}} {{.CgroupVersion}}").strip()
    if driver == "systemd 2":
        assert parent == "airflow-dags.slice"
        assert parents[-1] == parent
    else:
        assert parent == ""
        # Docker's own: a group `docker`, or a scope whose name begins so.
        assert "docker" in f"{parents[-1]}/{own}"
