"""What DAGs start is in airflow-dags.slice, which limits all of it; the platform is apart from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from testinfra.host import Host

from tests.slice.conftest import wait_until

SETTINGS = yaml.safe_load(Path(__file__).with_name("settings.yml").read_text(encoding="utf-8"))
[IMAGE] = SETTINGS["dag_container_images"]
SLICE = "/airflow.slice/airflow-dags.slice"
CGROUP = f"/sys/fs/cgroup{SLICE}"
FILTER = "docker-socket-proxy"
MOST_PROCESSES = SETTINGS["dag_slice_pids"]
MIB = 2**20

TAKE_MEMORY = """
import signal, sys
kept = b"x" * int(sys.argv[1])
print("has it", flush=True)
signal.pause()
"""
FORK = """
import errno, os, signal, sys
made, ended = 1, "as asked"
try:
    while made < int(sys.argv[1]):
        if os.fork() == 0:
            signal.pause()
        made += 1
except OSError as error:
    ended = errno.errorcode[error.errno]
print(made, ended, flush=True)
signal.pause()
"""
STAY_BUSY = """
print("busy", flush=True)
while True:
    pass
"""
MEASURE = f"""
import json, time

def used():
    with open("{CGROUP}/cpu.stat") as lines:
        found = dict(line.split() for line in lines)
    return time.monotonic(), int(found["usage_usec"]) / 1e6, int(found["nr_throttled"])

before = used()
time.sleep(20)
print(json.dumps([after - earlier for earlier, after in zip(before, used())]))
"""
"""Prints seconds, how many of a processor the slice used in them, and how often it was stopped."""

Start = Callable[..., str]


def command(program: str, *arguments: object) -> list[str]:
    return ["python3", "-c", program, *map(str, arguments)]


def state(host: Host, container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        host.check_output("docker inspect --format %s " + container, "{{json .State}}")
    )
    return found


def printed(host: Host, container: str) -> str:
    return str(host.check_output(f"docker logs {container}")).strip()


def wait_for_word(host: Host, *containers: str) -> None:
    """Wait until each has printed something, or has ended."""
    wait_until(
        "all containers have said something, or ended",
        lambda: all(printed(host, each) or not state(host, each)["Running"] for each in containers),
    )


def cgroup(host: Host, container: str) -> str:
    """Return the cgroup of its first process: version 2 has one line, of no controller."""
    line = host.check_output(f"cat /proc/{state(host, container)['Pid']}/cgroup")
    return str(line).removeprefix("0::")


def limit(host: Host, file: str) -> str:
    return str(host.check_output(f"cat {CGROUP}/{file}"))


def counted(host: Host, file: str) -> dict[str, int]:
    """Return the numbers of a file of the slice."""
    return {name: int(number) for name, number in (line.split() for line in limit(host, file).splitlines())}


@pytest.fixture
def start_of_dag(dags: docker.APIClient) -> Iterator[Start]:
    """A function that runs a program in a container of a DAG, and returns the container's id."""
    started: list[str] = []

    def start(program: str, *arguments: object) -> str:
        container = dags.create_container(IMAGE, command(program, *arguments))["Id"]
        started.append(container)
        dags.start(container)
        return str(container)

    yield start
    for container in started:
        dags.remove_container(container, force=True)


@pytest.fixture
def start_of_platform(host: Host) -> Iterator[Start]:
    """The same for a container that Docker gets past the filter, as Compose hands it those of services."""
    started: list[str] = []

    def start(program: str, *arguments: object) -> str:
        run = f"docker run --detach {IMAGE} python3 -c %s" + " %s" * len(arguments)
        started.append(host.check_output(run, program, *map(str, arguments)))
        return started[-1]

    yield start
    for container in started:
        host.check_output(f"docker rm --force {container}")


def test_filter_knows_the_slice_because_docker_leaves_cgroups_to_systemd(host: Host) -> None:
    """The role asks Docker."""
    assert host.check_output("docker info --format %s", "{{.CgroupDriver}} {{.CgroupVersion}}") == "systemd 2"
    policy = json.loads(host.file("/srv/airflow/docker-socket-proxy/policy.json").content_string)
    assert policy["cgroup_parent"] == Path(SLICE).name


def test_container_of_a_dag_is_in_the_slice_and_the_platforms_is_not(
    host: Host, start_of_dag: Start, start_of_platform: Start
) -> None:
    """Nor is the filter's own."""
    dag, platform = start_of_dag(TAKE_MEMORY, 1), start_of_platform(TAKE_MEMORY, 1)
    assert cgroup(host, dag) == f"{SLICE}/docker-{dag}.scope"
    assert cgroup(host, platform) == f"/system.slice/docker-{platform}.scope"
    assert SLICE not in cgroup(host, FILTER)
    total = int(host.check_output("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024
    share = total * SETTINGS["dag_slice_memory_percent"] / 100
    assert int(limit(host, "memory.max")) == pytest.approx(share, abs=MIB)
    assert limit(host, "pids.max") == str(MOST_PROCESSES)
    assert limit(host, "cpu.max") == f"{SETTINGS['dag_slice_cpu_percent'] * 1000} 100000"


def test_dag_may_not_choose_another_place(dags: docker.APIClient) -> None:
    host_config = dags.create_host_config(cgroup_parent="system.slice")
    with pytest.raises(docker.errors.APIError, match=r"HostConfig\.CgroupParent"):
        dags.create_container(IMAGE, command(TAKE_MEMORY, 1), host_config=host_config)


def test_memory_of_all_together_is_limited(host: Host, start_of_dag: Start, start_of_platform: Start) -> None:
    """Each of two takes less than the limit. One is killed, and not the platform's, which has the most."""
    one = start_of_dag(TAKE_MEMORY, 1)
    most = int(limit(host, "memory.max"))
    before = counted(host, "memory.events.local")["oom"], counted(host, "memory.events")["oom_kill"]
    platform = start_of_platform(TAKE_MEMORY, most * 11 // 10)
    pair = [start_of_dag(TAKE_MEMORY, most * 6 // 10) for _ in range(2)]
    wait_for_word(host, platform, *pair)
    # The kernel kills the larger one, so the other goes on to take what it was asked to.
    [killed] = [each for each in pair if not state(host, each)["Running"]]
    [other] = [each for each in pair if each != killed]
    wait_for_word(host, other)
    assert state(host, killed)["ExitCode"] == 128 + 9
    assert printed(host, other) == printed(host, platform) == "has it"
    assert all(state(host, each)["Running"] for each in (one, platform, FILTER))
    # It was the limit of the slice, and not one of a container or of the host.
    after = counted(host, "memory.events.local")["oom"], counted(host, "memory.events")["oom_kill"]
    assert after[0] > before[0]
    assert after[1] == before[1] + 1
    assert f"oom_memcg={SLICE},task_memcg={SLICE}/docker-{killed}.scope" in host.check_output("dmesg")


def test_processes_of_all_together_are_limited(
    host: Host, start_of_dag: Start, start_of_platform: Start
) -> None:
    """What one container has, another one lacks; the platform forks as it likes."""
    first = start_of_dag(FORK, MOST_PROCESSES * 6 // 10)
    wait_for_word(host, first)
    assert printed(host, first) == f"{MOST_PROCESSES * 6 // 10} as asked"
    second = start_of_dag(FORK, MOST_PROCESSES)
    wait_for_word(host, second)
    assert limit(host, "pids.current") == str(MOST_PROCESSES)
    assert printed(host, second) == f"{MOST_PROCESSES - MOST_PROCESSES * 6 // 10} EAGAIN"
    platform = start_of_platform(FORK, MOST_PROCESSES * 2)
    wait_for_word(host, platform)
    assert printed(host, platform) == f"{MOST_PROCESSES * 2} as asked"


def test_processor_time_of_all_together_is_limited(host: Host, start_of_dag: Start) -> None:
    """Each of two busy containers would take all that there is."""
    pair = [start_of_dag(STAY_BUSY) for _ in range(2)]
    wait_for_word(host, *pair)
    passed, used, stopped = json.loads(host.check_output("python3 -c %s", MEASURE))
    assert stopped > 0
    # One period more or less is of no account.
    assert 0 < used <= passed * SETTINGS["dag_slice_cpu_percent"] / 100 + 0.2


def test_rules_are_loaded_by_their_hardened_unit(host: Host) -> None:
    """On a kernel and a systemd of their own, which leave out no part of the unit."""
    shown = host.check_output("systemctl show --property=Result,ExecMainStatus airflow-firewall.service")
    assert set(shown.splitlines()) == {"Result=success", "ExecMainStatus=0"}
    assert 'iifname "docker0"' in host.check_output("nft list table inet airflow_dags")
