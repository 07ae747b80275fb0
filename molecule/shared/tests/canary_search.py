"""Looks for all secrets of the sandbox's vaults at once; canaries.py runs it on the host.

It needs only the host's own Python. It reads the values from Connect itself, so that none is in an argument
or a variable of a process, and prints names alone.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

Found = dict[str, list[str]]
"""The names of the canaries in each place, and under `canaries` those of all that are looked for."""

SHORTEST = 12
"""Characters. A shorter value, such as a login's name, may be anywhere by chance."""

PLANTED = "planted-4c1e97a0-to-be-found"
"""No secret: a text that a search has to find where a test puts it, else it could find nothing at all."""
TABLE = "CREATE TABLE public.xcom "
"""Nor this: every dump of an Airflow has it, once it is opened."""

fetch = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def gather(platform: Mapping[str, str], tasks: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each canary by each form of its text.

    `platform` and `tasks` are the variables of env/webhook.env and env/onepassword.env.
    """
    address = platform["OP_CONNECT"].rstrip("/") + "/v1/vaults"
    headers = {"Authorization": "Bearer " + platform["OP_API_TOKEN"]}

    def ask(path: str) -> Any:
        return json.load(fetch(urllib.request.Request(address + path, headers=headers), timeout=20))

    canaries = {platform["OP_API_TOKEN"]: "token of the platform", tasks["OP_API_TOKEN"]: "token of tasks"}
    for vault in ask(""):
        for item in ask(f"/{vault['id']}/items"):
            for field in ask(f"/{vault['id']}/items/{item['id']}")["fields"]:
                for text in recognisable(field.get("value") or ""):
                    if len(text) >= SHORTEST:
                        canaries[text] = f"{item['title']} / {field['label']}"
    return {form: name for text, name in canaries.items() for form in forms(text)}


def forms(text: str) -> Iterable[str]:
    """Return a text as it is, as a dump has a column of bytes, and as Base64 has it within something else."""
    data = text.encode()
    yield from (text, data.hex())
    for before in range(3):
        # The digits that depend on nothing but the text, however many bytes stand before it and after it.
        digits = base64.b64encode(bytes(before) + data).decode()
        yield digits[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]


def recognisable(value: str) -> Iterable[str]:
    """Return the parts of a value that are its own."""
    if value.startswith("-----BEGIN"):
        # The first lines of all keys of a kind are alike.
        return value.splitlines()[3:-1]
    return [value.split("://", 1)[1].partition("/")[2] if "://" in value else value]


def names_in(canaries: Mapping[str, str], text: str) -> list[str]:
    """Return the names of the canaries in a text, wherever a program has broken its lines at a space."""
    words = " ".join(text.split())
    return sorted({name for value, name in canaries.items() if value in text or value in words})


def variables(directory: str, file: str) -> dict[str, str]:
    """Read an env file of the platform."""
    with open(f"{directory}/env/{file}.env") as lines:
        pairs = (line.rstrip("\n").split("=", 1) for line in lines if re.match("[A-Z_]+=", line))
        return {name: value.strip("'") for name, value in pairs}


def known_to(directory: str) -> dict[str, str]:
    """Return the name of each canary by each form of its text, as the env files of this host lead to them."""
    return gather(variables(directory, "webhook"), variables(directory, "onepassword"))


def marks() -> dict[str, str]:
    """Return what is no canary and is looked for, to show that a search finds something."""
    return {TABLE: "table of XComs", **dict.fromkeys(forms(PLANTED), "planted")}


def service_of(labels: Mapping[str, str], name: str) -> str:
    """Return what a container is, by its labels: a service, a DAG's, or else the one of this name."""
    if labels.get("airflow.dag-container"):
        return "a DAG's container"
    return labels.get("com.docker.compose.service", name)


def search(
    directory: str, streams: Mapping[str, str], pages: Mapping[str, str], readable: Iterable[str]
) -> Found:
    """Return which canaries are in each place of this host.

    `streams` are shell commands that print a place. `pages` are addresses, asked as Prometheus asks.
    In the directories `readable` it looks at the files that everybody can read.
    """
    canaries = known_to(directory) | marks()
    found: Found = {"canaries": sorted(set(canaries.values()))}

    def add(place: str, text: str) -> None:
        found.setdefault(place, []).extend(names_in(canaries, text))

    with tempfile.NamedTemporaryFile("w", dir="/run") as patterns:
        patterns.write("\n".join(canaries) + "\n")
        patterns.flush()
        for place, command in streams.items():
            shell = ["bash", "-o", "pipefail", "-c", command]
            with subprocess.Popen(shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as source:
                done = subprocess.run(
                    ["grep", "-aoFf", patterns.name],
                    stdin=source.stdout,
                    stdout=subprocess.PIPE,
                    env={"LC_ALL": "C"},
                )
            if source.returncode or done.returncode > 1:
                sys.exit(f"{place} cannot be searched: {source.returncode}, {done.returncode}")
            add(place, done.stdout.decode(errors="replace"))

    # As nobody: what any user of the host can read.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = subprocess.run(
        [*nobody, "grep", "-rsaoZFf", "-", "--devices=skip", *readable],
        input="\n".join(canaries).encode(),
        stdout=subprocess.PIPE,
        env={"LC_ALL": "C"},
    )
    for line in done.stdout.decode(errors="replace").splitlines():
        path, _, text = line.partition("\0")
        add(f"the file {path}, which everybody can read", text)

    ids = subprocess.run(
        ["docker", "ps", "-aq"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    inspected = subprocess.run(["docker", "inspect", *ids], stdout=subprocess.PIPE, text=True)
    for container in json.loads(inspected.stdout):
        service = service_of(container["Config"]["Labels"] or {}, container["Name"])
        add(f"definition of {service}", json.dumps(container, ensure_ascii=False))

    with open(f"{directory}/webhook/metrics_token") as file:
        token = file.read().strip()
    for place, url in pages.items():
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        add(place, fetch(request, timeout=20).read().decode(errors="replace"))
    slack = variables(directory, "checker")["SLACK_WEBHOOK_URL"].partition("/services/")[0]
    messages = json.load(fetch(slack + "/messages", timeout=20))
    add(
        "the messages to Slack",
        json.dumps([message["payload"] for message in messages], ensure_ascii=False),
    )
    return found


if __name__ == "__main__":
    print(json.dumps(search(sys.argv[1], *map(json.loads, sys.argv[2:]))))
