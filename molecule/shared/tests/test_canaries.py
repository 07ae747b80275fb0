"""No secret is anywhere but in its place, after everything that the other tests did with the platform.

Every value of the sandbox's vaults, and each token, is a canary. One program on the host reads them from
Connect and looks for all of them at once, so that no canary is in an argument or a variable of a process.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
from expected import DIRECTORY, SERVICES
from testinfra.host import Host
from webhook.keys import signature
from webhook.settings import connect_from_environment
from webhook.vault import ConnectVault

AIRFLOW = {
    "Airflow keys / fernet key",
    "Airflow keys / webserver secret key",
    "Airflow database / password",
    "Airflow queue / password",
}
SLACK = "Slack webhook / url"
PLACES: dict[str, tuple[set[str], str]] = {
    "definition of airflow-webserver": (AIRFLOW, "its env file"),
    "definition of airflow-triggerer": (AIRFLOW, "its env file"),
    "definition of airflow-scheduler": (AIRFLOW | {SLACK}, "its env files; callbacks of DAGs send alerts"),
    "definition of airflow-worker": (AIRFLOW | {SLACK, "token of tasks"}, "its env files; tasks ask Connect"),
    "definition of airflow-init": (
        AIRFLOW | {"Airflow admin / password", "Airflow smoke test / password", "Airflow accounts / viewer"},
        "creates the accounts",
    ),
    "definition of flower": ({"Airflow queue / password", "Airflow workers page / password"}, "its env file"),
    "definition of postgres": ({"Airflow database / password"}, "its env file"),
    "definition of redis": ({"Airflow queue / password"}, "its env file"),
    "definition of webhook": (
        {SLACK, "DAG repository / github token", "token of the platform"},
        "its env file; it reports to GitHub and Slack, and reads and replaces its key",
    ),
    "the weather page": ({"Diagnostic ETL (Weather) / demonstration secret"}, "shown to demonstrate secrets"),
}
"""What may be where, and why. Nothing may be in any other place."""

STREAMS = {
    "the journal": "journalctl --no-pager --quiet --output cat",
    "the containers' logs": f"cd {DIRECTORY} && timeout 120 docker compose --ansi never logs --no-color",
    "the files of logs": f"find {DIRECTORY}/logs -type f -exec cat {{}} +",
    "the list of processes": "ps --no-headers -eww -o args",
    # XComs, rendered fields, connections and the audit log are in it.
    "the database": (
        f"cd {DIRECTORY} && docker compose exec --no-TTY postgres pg_dump --username=airflow --dbname=airflow"
    ),
    # Its dump is compressed, and is the database of above; the rest is the configuration.
    "the newest backup": "tar --extract --to-stdout --file $(ls -t /var/backups/airflow/*.tar | head -n 1)",
}
PAGES = {
    "the status page": "http://127.0.0.1:8081/",
    "the metrics": "http://127.0.0.1:8081/metrics",
    "the weather page": "http://127.0.0.1:8083/",
    "Airflow's login page": "http://127.0.0.1:8080/login/",
}
READABLE = [
    "/etc",
    "/srv",
    "/opt",
    "/usr/local",
    "/var/log",
    "/var/lib",
    "/var/backups",
    "/var/tmp",
    "/run",
    "/tmp",
]

SEARCH = r"""
import json, re, subprocess, sys, tempfile, urllib.request

directory, streams, pages, readable = sys.argv[1], *map(json.loads, sys.argv[2:])
fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def variables(file):
    lines = open(f"{directory}/env/{file}.env").read().splitlines()
    pairs = (line.split("=", 1) for line in lines if re.match("[A-Z_]+=", line))
    return {name: value.strip("'") for name, value in pairs}


platform, tasks = variables("webhook"), variables("onepassword")
address = platform["OP_CONNECT"].rstrip("/") + "/v1/vaults"


def ask(path):
    headers = {"Authorization": "Bearer " + platform["OP_API_TOKEN"]}
    return json.load(fetch(urllib.request.Request(address + path, headers=headers), timeout=20))


def recognisable(value):
    if value.startswith("-----BEGIN"):
        # The first lines of all keys of a kind are alike.
        return value.splitlines()[3:-1]
    return [value.split("://", 1)[1].partition("/")[2] if "://" in value else value]


canaries = {platform["OP_API_TOKEN"]: "token of the platform", tasks["OP_API_TOKEN"]: "token of tasks"}
for vault in ask(""):
    for item in ask(f"/{vault['id']}/items"):
        for field in ask(f"/{vault['id']}/items/{item['id']}")["fields"]:
            for text in recognisable(field.get("value") or ""):
                if len(text) >= 12:
                    canaries[text] = f"{item['title']} / {field['label']}"

found = {"canaries": sorted(set(canaries.values()))}


def add(place, text):
    found.setdefault(place, []).extend(name for value, name in canaries.items() if value in text)


with tempfile.NamedTemporaryFile("w", dir="/run") as patterns:
    patterns.write("\n".join(canaries) + "\n")
    patterns.flush()
    for place, command in streams.items():
        shell = ["bash", "-c", command]
        with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as source:
            grep = ["grep", "-aoFf", patterns.name]
            done = subprocess.run(grep, stdin=source.stdout, stdout=subprocess.PIPE, env={"LC_ALL": "C"})
        if source.returncode or done.returncode > 1:
            sys.exit(f"{place} cannot be searched: {source.returncode}, {done.returncode}")
        add(place, done.stdout.decode(errors="replace"))

# As nobody: what any user of the host can read.
nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
grep = [*nobody, "grep", "-rsaoZFf", "-", "--devices=skip", *readable]
done = subprocess.run(
    grep, input="\n".join(canaries).encode(), stdout=subprocess.PIPE, env={"LC_ALL": "C"}
)
for line in done.stdout.decode(errors="replace").splitlines():
    path, _, text = line.partition("\0")
    add(f"the file {path}, which everybody can read", text)

ids = subprocess.run(["docker", "ps", "-aq"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
inspected = subprocess.run(["docker", "inspect", *ids], stdout=subprocess.PIPE, text=True)
for container in json.loads(inspected.stdout):
    service = (container["Config"]["Labels"] or {}).get("com.docker.compose.service", container["Name"])
    add(f"definition of {service}", json.dumps(container, ensure_ascii=False))

for place, url in pages.items():
    add(place, fetch(url, timeout=20).read().decode(errors="replace"))
slack = variables("checker")["SLACK_WEBHOOK_URL"].partition("/services/")[0]
messages = json.load(fetch(slack + "/messages", timeout=20))
add("the messages to Slack", json.dumps([message["payload"] for message in messages], ensure_ascii=False))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(
    host: Host, http: Any, endpoints: dict[str, str], env_files: dict[str, dict[str, str]], weather_run: Any
) -> dict[str, list[str]]:
    """The names of the canaries that are in each place, after a run of the DAG and a call of the webhook."""
    key = ConnectVault(connect_from_environment(env_files["webhook.env"])).read()
    now, nonce = str(int(time.time())), os.urandom(16).hex()
    headers = {
        "X-Webhook-Timestamp": now,
        "X-Webhook-Nonce": nonce,
        "X-Webhook-Signature": f"sha256={signature(key, now, nonce, b'')}",
    }
    call = http("POST", f"{endpoints['webhook']}/webhook", headers=headers)
    assert call.status_code not in (401, 403), call.text
    documents = (json.dumps(document) for document in (STREAMS, PAGES, READABLE))
    result = host.run("timeout 300 python3 -c %s %s %s %s %s", SEARCH, DIRECTORY, *documents)
    assert result.rc == 0, result.stderr
    places: dict[str, list[str]] = json.loads(result.stdout)
    return places


def test_canaries_are_recognised(found: dict[str, list[str]]) -> None:
    """A search that finds nothing where there is something would prove nothing."""
    assert {*AIRFLOW, SLACK, "Airflow webhook / key", "Airflow webhook / relay token"} <= set(
        found["canaries"]
    )
    for service in ("airflow-worker", "webhook"):
        place = f"definition of {service}"
        assert set(found[place]) == PLACES[place][0]


@pytest.mark.parametrize(
    "place",
    [*STREAMS, *PAGES, "the messages to Slack", *(f"definition of {service}" for service in SERVICES)],
)
def test_place_has_its_own_secrets_alone(found: dict[str, list[str]], place: str) -> None:
    """Logs, dumps, pages and definitions are copied, mailed and pasted into tickets."""
    assert set(found[place]) - PLACES.get(place, (set(), ""))[0] == set()


def test_nothing_is_found_anywhere_else(found: dict[str, list[str]]) -> None:
    """In a file that everybody can read, or in a container that is no service."""
    elsewhere = {place: set(names) - PLACES.get(place, (set(), ""))[0] for place, names in found.items()}
    assert {place: names for place, names in elsewhere.items() if names and place != "canaries"} == {}
