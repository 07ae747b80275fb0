"""Which secret may be where. Every value of the sandbox's vaults, and each token, is a canary.

The scenarios look for them: on the host by the program canary_search.py and, while others work, by
process_watch.py; on this machine in what playbooks print and fetch, and in Airflow's pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import canary_search
from canary_search import PLANTED, Found
from expected import BACKUPS, DIRECTORY, ENDPOINTS, WORKERS
from testinfra.host import Host

from tests.compose_project import SECOND

AIRFLOW = {
    "Airflow keys / fernet key",
    "Airflow keys / webserver secret key",
    "Airflow database / password",
    "Airflow queue / password",
}
ACCOUNTS = {"Airflow admin / password", "Airflow smoke test / password", "Airflow accounts / viewer"}
SLACK = "Slack webhook / url"
REGISTRY = {"Docker registry / username", "Docker registry / password"}
DEMONSTRATION = "Diagnostic ETL (Weather) / demonstration secret"
"""What DAGs read: the smoke test's, and the one of the tests that hands it on."""
PLACES: dict[str, tuple[set[str], str]] = {
    "definition of airflow-webserver": (AIRFLOW, "its env file"),
    "definition of airflow-triggerer": (AIRFLOW, "its env file"),
    "definition of airflow-scheduler": (AIRFLOW | {SLACK}, "its env files; callbacks of DAGs send alerts"),
    **dict.fromkeys(
        (f"definition of {worker}" for worker in WORKERS),
        (AIRFLOW | REGISTRY | {SLACK, "token of tasks"}, "its env files; tasks ask Connect, pull images"),
    ),
    "definition of airflow-init": (AIRFLOW | ACCOUNTS, "creates the accounts"),
    "definition of airflow-init-next": (AIRFLOW | ACCOUNTS, "the same, in a switch"),
    "definition of airflow-webserver-standby": (AIRFLOW, "its env file, in a switch"),
    "definition of flower": ({"Airflow queue / password", "Airflow workers page / password"}, "its env file"),
    "definition of postgres": ({"Airflow database / password"}, "its env file"),
    "definition of redis": ({"Airflow queue / password"}, "its env file"),
    "definition of webhook": (
        {SLACK, "DAG repository / github token", "token of the platform"},
        "its env file; it reports to GitHub and Slack, and reads and replaces its key",
    ),
    "definition of airflow-cli": (AIRFLOW | REGISTRY | {SLACK, "token of tasks"}, "tasks by hand"),
    "definition of a DAG's container": ({DEMONSTRATION}, "while it runs; DAGs hand it on"),
    "the weather page": ({DEMONSTRATION}, "shown to demonstrate secrets"),
}
"""What may be where, and why. Nothing may be in any other place.

The variables of a service's processes are those of its definition.
"""

NEWEST_BACKUP = f"tar --extract --to-stdout --file=$(ls -t {BACKUPS}/*.tar | head -n 1)"
STREAMS = {
    "the journal": "journalctl --no-pager --quiet --output cat",
    "the containers' logs": f"cd {DIRECTORY} && timeout 120 docker compose --ansi never logs --no-color",
    "the files of logs": f"find {DIRECTORY}/logs -type f -exec cat {{}} +",
    "the list of processes": "ps --no-headers -eww -o args",
    # XComs, rendered fields, connections and the audit log are in them. A failed switch leaves one more.
    "the databases": f"cd {DIRECTORY} && docker compose exec --no-TTY postgres pg_dumpall --username=airflow",
    "the newest backup": f"{NEWEST_BACKUP} --exclude=database.dump",
    # It is compressed.
    "the dump in the newest backup": (
        f"cd {DIRECTORY} && {NEWEST_BACKUP} database.dump"
        " | docker compose exec --no-TTY postgres pg_restore --file=-"
    ),
    "operations, reports and what the checker remembers": (
        f"find {DIRECTORY}/releases {DIRECTORY}/status /var/lib/airflow-checker -type f"
        r" \( -name '*.json' -o -name '*.html' -o -name '*.patch' \) -exec cat {} +"
    ),
}
PAGES = {
    "the status page": f"http://127.0.0.1:{ENDPOINTS['webhook']}/",
    "the metrics": f"http://127.0.0.1:{ENDPOINTS['webhook']}/metrics",
    "the weather page": f"http://127.0.0.1:{ENDPOINTS['weather']}/",
    "Airflow's login page": f"http://127.0.0.1:{ENDPOINTS['airflow']}/login/",
}
SLACK_MESSAGES = "the messages to Slack"
WATCH_REPORT = "/var/lib/canary-watch/report.json"
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


PLANTED_PLACES = {
    # The program that searches is an argument, and names it.
    "the list of processes",
    "the files of logs",
    "the databases",
    "the file /var/tmp/planted, which everybody can read",
}


@contextmanager
def planted(host: Host) -> Iterator[None]:
    """Put a text into a log, a column of bytes and a file that everybody can read."""
    log, file = f"{DIRECTORY}/logs/planted.log", "/var/tmp/planted"
    sql = f"cd {DIRECTORY} && docker compose exec --no-TTY postgres psql --username=airflow --quiet"
    try:
        host.check_output("echo %s | install --mode=0644 /dev/stdin %s", PLANTED, file)
        host.check_output("echo %s | install --mode=0600 /dev/stdin %s", PLANTED, log)
        host.check_output(f"{sql} --dbname=postgres --command='CREATE DATABASE planted'")
        table = f"CREATE TABLE planted AS SELECT convert_to('{PLANTED}', 'UTF8') AS value"
        host.check_output(f"{sql} --dbname=planted --command=%s", table)
        yield
    finally:
        host.check_output("rm --force %s %s", file, log)
        host.check_output(f"{sql} --dbname=postgres --command='DROP DATABASE IF EXISTS planted'")


class Canaries:
    """The canaries as this machine knows them."""

    def __init__(self, env_files: Mapping[str, Mapping[str, str]]) -> None:
        """Read the values from Connect."""
        self._names = canary_search.gather(env_files["webhook.env"], env_files["onepassword.env"])

    def in_text(self, text: str) -> set[str]:
        """Return the names of those that a text has."""
        return set(canary_search.names_in(self._names, text))

    def values(self, name: str) -> list[str]:
        """Return what has this name, in each of its forms."""
        return [form for form, found in self._names.items() if found == name]


def search(host: Host) -> Found:
    """Return the names of the canaries that are in each place of the host."""
    program = Path(canary_search.__file__).read_text(encoding="utf-8")
    documents = (json.dumps(document) for document in (STREAMS, PAGES, READABLE))
    result = host.run("timeout 300 python3 -c %s %s %s %s %s", program, DIRECTORY, *documents)
    assert result.rc == 0, result.stderr
    found: Found = json.loads(result.stdout)
    return found


def watched(host: Host) -> Found:
    """Stop the watch of processes, and return the names of the canaries that it has seen in each place."""
    host.check_output("systemctl stop canary-watch.service")
    found: Found = json.loads(host.file(WATCH_REPORT).content_string)
    return found


def watch_again(host: Host) -> None:
    """Start the watch of processes anew."""
    host.check_output("rm --force %s && systemctl start canary-watch.service", WATCH_REPORT)


def allowed(place: str) -> set[str]:
    """Return the names of the canaries that may be in a place; a test may have a second worker."""
    known = place.replace("variables of ", "definition of ").replace(SECOND, "airflow-worker")
    return PLACES.get(known, (set(), ""))[0]


def misplaced(found: Found) -> dict[str, set[str]]:
    """Return each place that has a canary which may not be there, with what it has too much."""
    marks = set(canary_search.marks().values())
    surplus = {
        place: set(names) - allowed(place) - marks
        for place, names in found.items()
        if place not in ("canaries", "programs")
    }
    return {place: names for place, names in surplus.items() if names}
