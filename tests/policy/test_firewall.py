"""What DAGs' containers may have together, and the ports of the host that they do not reach."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.missing import needs
from tests.policy.conftest import CASES, ROOT, Rendered, load
from tests.releases import NEWEST

RULES = "etc/airflow-firewall/rules.nft"
SLICE = "etc/systemd/system/airflow-dags.slice"
UNIT = "etc/systemd/system/airflow-firewall.service"
COMPOSE = "srv/airflow/docker-compose.yaml"
USUAL = f"registry {NEWEST}"
every_case = pytest.mark.parametrize("case", CASES)
with_nftables = needs("nft", "ip", "unshare", "nsenter", root=True)


@every_case
def test_rules_close_the_ports_that_are_published(rendered: dict[str, Rendered], case: str) -> None:
    """Those of the host names, too: no other list has them."""
    services = yaml.safe_load(rendered[case][COMPOSE])["services"].values()
    published = [port.split(":")[0] for service in services for port in service.get("ports", [])]
    [closed] = re.findall(r"tcp dport \{ ([\d, ]+) \} counter drop", rendered[case][RULES])
    assert closed.split(", ") == published


def test_slice_limits_what_dags_start(rendered: dict[str, Rendered]) -> None:
    """By the inventory's numbers; systemd counts a processor as 100 %, and the host has four here."""
    defaults = load(ROOT / "playbooks/group_vars/all/defaults.yml")
    settings = dict(re.findall(r"^(\w+)=(\d+)%?$", rendered[USUAL][SLICE], re.MULTILINE))
    assert settings == {
        "MemoryMax": str(defaults["dag_slice_memory_percent"]),
        "CPUQuota": str(4 * defaults["dag_slice_cpu_percent"]),
        "TasksMax": str(defaults["dag_slice_pids"]),
    }


def test_rules_are_loaded_before_docker_starts_and_each_time(rendered: dict[str, Rendered]) -> None:
    """A unit that stayed active would not load them again after somebody has flushed them."""
    unit = rendered[USUAL][UNIT]
    assert re.search(r"^Before=docker\.service$", unit, re.MULTILINE)
    assert re.search(r"^WantedBy=docker\.service$", unit, re.MULTILINE)
    assert f"--file /{RULES}\n" in unit
    # Containers outlive Docker, and so must the rules.
    assert not re.search(r"^(PartOf|BindsTo|ExecStop|RemainAfterExit)=", unit, re.MULTILINE)


# A host with two addresses, a container on its bridge, and servers on a published and on another port. It
# prints what can be reached, loads the rules twice, and prints it again.
HOST = """
set -o errexit
ip link set lo up
ip address add 10.9.9.9/32 dev lo
ip link add docker0 type veth peer name eth0
unshare --net sleep 60 & container=$!
until [ "$(readlink /proc/$container/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
ip link set eth0 netns $container
ip address add 172.30.0.1/24 dev docker0
ip link set docker0 up
inside() { nsenter --target=$container --net "$@"; }
inside ip address add 172.30.0.2/24 dev eth0
inside ip link set eth0 up
inside ip route add default via 172.30.0.1
python3 -c '
import socket, time
servers = [socket.create_server(("", port)) for port in (8080, 9090)]
print("ready", flush=True)
time.sleep(60)' > "$1/ready" & server=$!
until grep --quiet ready "$1/ready"; do kill -0 $server; done
knock() {
    timeout 2 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null && echo "$1:$2 open" || echo "$1:$2 closed"
}
export -f knock
look() {
    for target in "172.30.0.1 8080" "10.9.9.9 8080" "172.30.0.1 9090"; do inside bash -c "knock $target"; done
    knock 127.0.0.1 8080
}
look
nft --file "$2"
nft --file "$2"
look
nft list table inet airflow_dags | grep --count drop
kill $container $server
"""


@with_nftables
def test_container_on_the_bridge_reaches_no_published_port(
    rendered: dict[str, Rendered], tmp_path: Path
) -> None:
    """By no address of the host; other ports stay open, and the host itself has all of them."""
    rules = tmp_path / "rules.nft"
    rules.write_text(rendered[USUAL][RULES])
    run = subprocess.run(
        ["unshare", "--net", "bash", "-c", HOST, "host", str(tmp_path), str(rules)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    published = ["172.30.0.1:8080", "10.9.9.9:8080"]
    others = ["172.30.0.1:9090", "127.0.0.1:8080"]
    assert run.stdout.splitlines() == [
        *(f"{target} open" for target in (*published, *others)),
        *(f"{target} closed" for target in published),
        *(f"{target} open" for target in others),
        "1",
    ]
