"""What somebody finds who has taken over a task on a worker, or the worker's host."""

from __future__ import annotations

import json
import subprocess

import pytest
from expected import DIRECTORY
from testinfra.host import Host
from worker_host import GATEWAY, WorkerHost

# Reads secrets by name from its standard input, and says which it finds: in variables of processes, and in
# files that it can read below its arguments. The images' own programs are the same on every host.
SEARCH = """
import glob, json, os, sys
wanted = {name: text.encode() for name, text in json.load(sys.stdin).items()}
found = {}
def look(place):
    try:
        with open(place, "rb") as file:
            content = file.read(50_000_000)
    except OSError:
        return
    for name, text in wanted.items():
        if text in content:
            found.setdefault(name, []).append(place)
for place in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline"):
    look(place)
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev", "site-packages", "usr")]
        for name in files:
            place = os.path.join(folder, name)
            if os.path.isfile(place):
                look(place)
print(json.dumps(found))
"""

NEVER = [
    "webserver key",
    "administrator's password",
    "smoke test's password",
    "Flower password",
    "Postgres password",
    "platform's 1Password token",
    "deploy key",
    "gateway's key",
    "token of Prometheus",
]
NEEDED = {"Fernet key", "Redis password", "tasks' 1Password token"}


def line_of_key(pem: str) -> str:
    """Return a line of a private key that no other key has."""
    key = pem[pem.index("PRIVATE KEY-----") :].splitlines()
    return key[2] if len(key[2]) > 30 else key[1][-40:]


@pytest.fixture(scope="module")
def wanted(host: Host, secrets: dict[str, str]) -> dict[str, str]:
    """Each secret's value, or a part of it that is enough to know it by."""
    found = {
        **secrets,
        "deploy key": line_of_key(host.file(f"{DIRECTORY}/webhook/deploy_key").content_string),
        "gateway's key": line_of_key(host.file(f"{GATEWAY}/gateway.pem").content_string),
        "token of Prometheus": host.file(f"{DIRECTORY}/webhook/metrics_token").content_string.strip(),
    }
    assert all(len(found[name]) >= 8 for name in (*NEVER, *NEEDED))
    return {name: found[name] for name in (*NEVER, *NEEDED)}


def search(worker: WorkerHost, wanted: dict[str, str], *inside: str, folder: str) -> set[str]:
    """Return what is found; the secrets are in no command line, where they would be found."""
    command = ["docker", "exec", "--interactive", worker.container, *inside, "python3", "-c", SEARCH, folder]
    done = subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def in_the_task(worker: WorkerHost, wanted: dict[str, str]) -> set[str]:
    """What a task can read, as its user and in its container."""
    container = worker.containers()["airflow-worker"]["Id"]
    return search(worker, wanted, "docker", "exec", "--interactive", container, folder="/")


@pytest.fixture(scope="module")
def on_the_host(worker: WorkerHost, wanted: dict[str, str]) -> set[str]:
    """What root can read on the worker's host: the platform's files, and every process."""
    return search(worker, wanted, folder=DIRECTORY)


def test_search_finds_what_a_task_needs(in_the_task: set[str], on_the_host: set[str]) -> None:
    """Otherwise what follows would prove nothing."""
    assert in_the_task >= NEEDED
    assert on_the_host >= NEEDED


@pytest.mark.parametrize("secret", NEVER)
def test_secret_is_not_there(in_the_task: set[str], on_the_host: set[str], secret: str) -> None:
    """With the webserver's key somebody could forge a session, with the others worse."""
    assert secret not in in_the_task
    assert secret not in on_the_host


def test_worker_has_a_password_of_its_own(worker: WorkerHost, secrets: dict[str, str]) -> None:
    """For the database, with a role of its own, in all its connections."""
    [password] = worker.database_passwords
    assert password
    assert password not in secrets.values()


def test_task_reads_its_vault_and_no_other(worker: WorkerHost, env_files: dict[str, dict[str, str]]) -> None:
    """The same token as on the main host; with it the platform's vault cannot be read."""
    program = (
        "import os, sys, requests\n"
        "address = os.environ['OP_CONNECT'].rstrip('/') + '/v1/vaults/'\n"
        "headers = {'Authorization': 'Bearer ' + os.environ['OP_API_TOKEN']}\n"
        "for vault in (os.environ['OP_VAULT_ID'], sys.argv[1]):\n"
        "    print(requests.get(f'{address}{vault}/items', headers=headers, timeout=10).status_code)\n"
    )
    done = worker.inside(program, env_files["webhook.env"]["OP_VAULT_ID"])
    own, platforms = done.stdout.split()
    assert own == "200", done.stderr
    assert platforms in ("403", "404")
