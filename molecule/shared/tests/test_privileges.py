"""Least privilege: each container sees its own variables, networks and mounts, and may do nothing else."""

from __future__ import annotations

import ipaddress
import itertools
import json
from typing import Any

import pytest
from expected import AIRFLOW_SERVICES, DIRECTORY, LISTENS, PROJECT, PUBLISHED, SECRETS, SERVICES, VARIABLES
from testinfra.host import Host

Containers = dict[str, dict[str, Any]]
every_service = pytest.mark.parametrize("service", SERVICES)


Environments = dict[str, list[str]]


@pytest.fixture(scope="module")
def environments(execute: Any) -> Environments:
    """The variables that a shell in each container sees: its own, and those of every process there.

    Some programs, such as Redis, write over the variables that they were started with. The shell has all.
    """
    found: Environments = {}
    for service in SERVICES:
        # A process may end meanwhile.
        result = execute(service, "sh -c %s", "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\000' '\\n'")
        assert result.rc == 0, result.stderr
        found[service] = result.stdout.splitlines()
        assert any(variable.startswith("PATH=") for variable in found[service])
    return found


@every_service
@pytest.mark.parametrize("secret", SECRETS)
def test_secret_is_seen_by_whom_it_is_for(
    environments: Environments, secrets: dict[str, str], service: str, secret: str
) -> None:
    """Under whatever name, alone or inside an address: one container less is one way less to lose it."""
    assert secrets[secret], f"the {secret} is empty on the host"
    seen = any(secrets[secret] in variable for variable in environments[service])
    assert seen == (secret in SERVICES[service].secrets)


@every_service
@pytest.mark.parametrize("variable", VARIABLES)
def test_variable_is_seen_by_whom_it_is_for(environments: Environments, service: str, variable: str) -> None:
    """The team's names stay, and mean the same everywhere."""
    names = {entry.partition("=")[0] for entry in environments[service]}
    assert (variable in names) == (service in VARIABLES[variable])


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_in_a_containers_definition(
    containers: Containers, secrets: dict[str, str], secret: str
) -> None:
    """Commands, labels and health checks are shown by tools that hide variables."""
    definitions = [
        {**document, "Config": {**document["Config"], "Env": []}} for document in containers.values()
    ]
    assert secrets[secret] not in json.dumps(definitions)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_in_a_process_list(processes: str, secrets: dict[str, str], secret: str) -> None:
    """Every user of the host and every monitoring agent can list processes, those in containers too."""
    assert "celery" in processes
    assert "redis-server" in processes
    assert secrets[secret] not in processes


@pytest.fixture(scope="module")
def processes(host: Host) -> str:
    """The command line of every process on the host, in containers or not."""
    text: str = host.check_output("ps --no-headers -eww -o args")
    return text


ASK_CONNECT = """
import json, os, sys, requests
address = os.environ["OP_CONNECT"].rstrip("/") + "/v1/vaults"
headers = {"Authorization": "Bearer " + os.environ["OP_API_TOKEN"]}
def ask(method, path):
    answer = requests.request(method, f"{address}/{path}", headers=headers, json={}, timeout=10)
    return answer.status_code
own, platform = os.environ["OP_VAULT_ID"], sys.argv[1]
print(json.dumps({
    "read": [ask("GET", f"{own}/items")],
    "write": [ask("POST", f"{own}/items"), ask("DELETE", f"{own}/items/any")],
    "read the platform's": [ask("GET", platform + path) for path in ("", "/items", "/items/any")],
    "write the platform's": [ask(method, f"{platform}/items/any") for method in ("PUT", "PATCH", "DELETE")],
}))
"""


def test_task_neither_reads_nor_replaces_the_webhooks_key(
    execute: Any, env_files: dict[str, dict[str, str]]
) -> None:
    """Asked as a task would ask, with the worker's own variables. Its vault it reads and does not write."""
    platform = env_files["webhook.env"]["OP_VAULT_ID"]
    result = execute("airflow-worker", "python -c %s %s", ASK_CONNECT, platform)
    assert result.rc == 0, result.stderr
    assert json.loads(result.stdout) == {
        "read": [200],
        "write": [403, 403],
        "read the platform's": [403, 404, 403],
        "write the platform's": [403, 403, 403],
    }


@every_service
def test_service_is_on_its_networks_alone(containers: Containers, service: str) -> None:
    """Flower has no business with the database, and the weather page none with anybody."""
    found = {name.removeprefix(f"{PROJECT}_") for name in containers[service]["NetworkSettings"]["Networks"]}
    assert found == SERVICES[service].networks


WAYS_OUT = {"public", "outside"}
"""The networks that lead outside. Without one, a service cannot send anything to the internet."""


@pytest.fixture(scope="module")
def networks(host: Host) -> dict[str, Any]:
    """What Docker says of each network of the platform, by the name that the Compose file has for it."""
    names = sorted(set().union(*(service.networks for service in SERVICES.values())) - {"none"})
    answer = host.check_output(f"docker network inspect {' '.join(f'{PROJECT}_{name}' for name in names)}")
    return dict(zip(names, json.loads(answer), strict=True))


def test_network_leads_outside_only_where_it_must(networks: dict[str, Any]) -> None:
    assert {name for name, network in networks.items() if not network["Internal"]} == WAYS_OUT


@every_service
def test_routes_lead_to_its_networks_alone(execute: Any, networks: dict[str, Any], service: str) -> None:
    """From inside: what runs a commit's code, and what has Docker's socket, has no route at all."""
    result = execute(service, "cat /proc/net/route")
    assert result.rc == 0, result.stderr
    heading, *lines = (line.split() for line in result.stdout.splitlines())
    rows = [dict(zip(heading, line, strict=False)) for line in lines]

    def address(text: str) -> ipaddress.IPv4Address:
        return ipaddress.IPv4Address(bytes.fromhex(text)[::-1])

    found = {f"{address(row['Destination'])}/{address(row['Mask'])}" for row in rows}
    expected = {
        ipaddress.ip_network(config["Subnet"]).with_netmask
        for name in SERVICES[service].networks - {"none"}
        for config in networks[name]["IPAM"]["Config"]
    }
    way_out = {"0.0.0.0/0.0.0.0"} if SERVICES[service].networks & WAYS_OUT else set()
    assert found == expected | way_out


def addresses(host: Host, container: str) -> list[str]:
    """Return a container's addresses, asked anew: another test may have restarted it."""
    [document] = json.loads(host.check_output(f"docker inspect {container}"))
    found = [network["IPAddress"] for network in document["NetworkSettings"]["Networks"].values()]
    assert found
    assert all(found)
    return found


@pytest.mark.parametrize(
    ("service", "other"),
    [
        # Whoever breaks into what HAProxy publishes meets HAProxy, and none of its neighbours. But the
        # webhook's status page asks Airflow.
        *(
            pair
            for pair in itertools.permutations(PUBLISHED, 2)
            if set(pair) != {"airflow-webserver", "webhook"}
        ),
        *(("weather", other) for other in LISTENS if other not in PUBLISHED),
        *(("haproxy", other) for other in LISTENS if other not in PUBLISHED),
        ("flower", "postgres"),
        ("airflow-webserver", "redis"),
        ("webhook", "postgres"),
        ("webhook", "redis"),
        ("redis", "postgres"),
        ("postgres", "redis"),
    ],
)
def test_service_cannot_reach_what_is_not_its_own(
    host: Host, containers: Containers, execute: Any, service: str, other: str
) -> None:
    """The networks' names promise it; this is the packet that does not arrive, its address known or not."""
    for address in addresses(host, containers[other]["Id"]):
        result = execute(service, "timeout 3 bash -c %s", f"exec 3<>/dev/tcp/{address}/{LISTENS[other]}")
        # There is no way to it, or nothing comes back until the time is up.
        assert "unreachable" in result.stderr or result.rc == 124, result.stderr


@pytest.mark.parametrize("service", LISTENS)
def test_service_listens_on_the_port_that_others_try(
    host: Host, containers: Containers, execute: Any, service: str
) -> None:
    """Otherwise nothing would arrive there in any case."""
    for address in addresses(host, containers[service]["Id"]):
        result = execute(service, "timeout 3 bash -c %s", f"exec 3<>/dev/tcp/{address}/{LISTENS[service]}")
        assert result.rc == 0, result.stderr


INTRUDE = """
for path in /intruder /etc/intruder /usr/bin/intruder /proc/sysrq-trigger /proc/sys/kernel/hostname; do
    if (: >> "$path") 2>/dev/null; then echo "$path"; fi
done
"""
"""Opens for writing what no shell in a container may write to, and prints what it could open."""


@every_service
def test_shell_can_write_neither_programs_nor_the_kernels_settings(execute: Any, service: str) -> None:
    """Whatever the container's definition says: this is what somebody meets who got in."""
    result = execute(service, "sh -c %s", INTRUDE)
    assert result.rc == 0, result.stderr
    assert result.stdout == ""


LIMITS = """
cd /sys/fs/cgroup
cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes
cat pids.max 2>/dev/null || cat pids/pids.max
"""
"""Prints what the kernel keeps the shell's own container to, on either version of cgroups."""


@pytest.fixture(scope="module")
def definitions(host: Host) -> dict[str, dict[str, Any]]:
    """What Compose reads of each service."""
    text = host.check_output(f"docker compose --project-directory {DIRECTORY} config --format json")
    services: dict[str, dict[str, Any]] = json.loads(text)["services"]
    return services


@every_service
def test_kernel_keeps_a_service_to_its_limits(
    definitions: dict[str, dict[str, Any]], execute: Any, service: str
) -> None:
    """What goes wild takes its own memory and its own processes, and not the host's."""
    result = execute(service, "sh -c %s", LIMITS)
    assert result.rc == 0, result.stderr
    wanted = [int(definitions[service][name]) for name in ("mem_limit", "pids_limit")]
    assert [int(line) for line in result.stdout.split()] == wanted


@every_service
def test_service_mounts_nothing_else(containers: Containers, service: str) -> None:
    """One mount too many is a way out: above all the raw Docker socket, which is root on the host."""
    found = {
        (
            mount.get("Name") or mount["Source"],
            mount["Destination"],
            "writable" if mount["RW"] else "read-only",
        )
        for mount in containers[service]["Mounts"]
    }
    assert found == SERVICES[service].mounts


RUNTIMES_OWN = ("/", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""What Docker itself mounts in every container, beside what is below these."""
KERNELS_OWN = ("/dev", "/proc", "/sys")


@every_service
def test_shell_sees_no_other_mount(
    execute: Any, definitions: dict[str, dict[str, Any]], service: str
) -> None:
    """From inside: nothing of the host is there that the container's definition does not name."""
    result = execute(service, "cat /proc/self/mountinfo")
    assert result.rc == 0, result.stderr
    found = set()
    for line in result.stdout.splitlines():
        _, _, _, _, place, options, *_ = line.split()
        if place not in RUNTIMES_OWN and not f"{place}/".startswith(tuple(f"{one}/" for one in KERNELS_OWN)):
            found.add((place, "writable" if "rw" in options.split(",") else "read-only"))
    expected = {
        # In the image it is a link to /run.
        (place.replace("/var/run/", "/run/"), mode)
        for _, place, mode in SERVICES[service].mounts
    }
    expected |= {(place.partition(":")[0], "writable") for place in definitions[service].get("tmpfs") or ()}
    assert found == expected


@every_service
def test_file_system_is_read_only_where_nothing_is_written(containers: Containers, service: str) -> None:
    """An intruder cannot leave anything in a file system that takes nothing."""
    assert containers[service]["HostConfig"]["ReadonlyRootfs"] == SERVICES[service].read_only


Status = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def kernel(host: Host, containers: Containers) -> Status:
    """What the kernel says of each container's first process: its users, capabilities and privileges."""
    status: Status = {}
    # Asked anew, since another test may have restarted a container.
    ids = " ".join(document["Id"] for document in containers.values())
    pids = host.check_output(f"docker inspect --format '{{{{.State.Pid}}}}' {ids}").split()
    services = dict(zip(pids, containers, strict=True))
    files = " ".join(f"/proc/{pid}/status" for pid in services)
    for line in host.check_output(f"grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' {files}").splitlines():
        path, name, value = line.split(":", 2)
        status.setdefault(services[path.split("/")[2]], {})[name] = value.split()
    return status


@every_service
def test_service_runs_as_its_own_user(kernel: Status, settings: dict[str, str], service: str) -> None:
    """Nobody is root but the socket proxy, whose socket is root's; Airflow is who the inventory says."""
    expected = SERVICES[service].uid
    uid = str(settings["AIRFLOW_UID"] if expected is None else expected)
    assert kernel[service]["Uid"] == [uid] * 4


@every_service
def test_service_has_no_capability(kernel: Status, service: str) -> None:
    """Not even one that it could get: root without capabilities is a user like others."""
    assert int(kernel[service]["CapEff"][0], 16) == 0
    assert int(kernel[service]["CapBnd"][0], 16) == 0


@every_service
def test_service_cannot_gain_privileges(kernel: Status, service: str) -> None:
    """A setuid program in an image stays a program."""
    assert kernel[service]["NoNewPrivs"] == ["1"]


@every_service
def test_service_is_confined_as_declared(containers: Containers, service: str) -> None:
    """No privileged container, no capability handed back, nothing of the host's own name spaces."""
    config = containers[service]["HostConfig"]
    assert not config["Privileged"]
    assert config["CapDrop"] == ["ALL"]
    assert not config["CapAdd"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert (config["PidMode"], config["UsernsMode"], config["NetworkMode"] == "host") == ("", "", False)
    assert not config["Devices"]


def test_redis_refuses_without_the_password(execute: Any) -> None:
    """Whoever can write to the broker can have the worker run anything."""
    result = execute("redis", "redis-cli ping", options="--env REDISCLI_AUTH=")
    assert "NOAUTH" in result.stdout
    assert "PONG" not in result.stdout


def test_postgres_refuses_without_the_password(execute: Any) -> None:
    """A stolen place on the network is not a stolen database."""
    program = 'import psycopg2; psycopg2.connect("host=postgres user=airflow dbname=airflow password=wrong")'
    result = execute("airflow-worker", "python -c %s", program)
    assert result.rc != 0
    assert "password authentication failed" in result.stderr


@pytest.mark.parametrize("service", [*AIRFLOW_SERVICES, "flower"])
def test_image_has_no_secret_of_its_own(
    containers: Containers, host: Host, secrets: dict[str, str], service: str
) -> None:
    """An image is copied to places where its host's secrets must not go."""
    image = containers[service]["Config"]["Image"]
    history = host.check_output(f"docker history --no-trunc --format '{{{{.CreatedBy}}}}' {image}")
    found = [name for name, value in secrets.items() if value in history]
    assert found == []
