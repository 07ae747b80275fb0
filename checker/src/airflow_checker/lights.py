"""Every light: its name, how grave it is, what it means and what to do.

docs/when-something-is-wrong.md has this table, and a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from airflow_checker.roles import HAPROXY, POSTGRES, REDIS, SCHEDULER, TRIGGERER, TUNNEL, WEBHOOK

CRITICAL = "critical"
"""Something that users or DAGs need does not work, or soon will not."""
WARNING = "warning"
"""It works, and needs a look today."""
NOTICE = "notice"
"""It can wait for the next maintenance, or is over: the verdict stays `ok`, and nobody is sent a message.

What is told `once` is an exception.
"""


@dataclass(frozen=True)
class Light:
    """One kind of finding."""

    severity: str
    meaning: str
    """A sentence for whoever reads the table."""
    advice: str
    """One sentence that says what to do."""
    patience: float = 60
    """Seconds for which it has to stand before somebody is told."""
    message: bool = True
    """Whether the checker sends a message of it; the webhook does otherwise."""
    once: bool = False
    """Whether it is told at once and never again: it is over already, and asks for nothing."""
    needs: str = ""
    """The role of the service that it is about: a host without such a service has no such light."""

    @property
    def where(self) -> str:
        """Return which hosts have it: `every`, `main` or `worker`."""
        return "worker" if self.needs == TUNNEL else "main" if self.needs else "every"

    @property
    def note(self) -> str:
        """Return what is special about its message, "" for nothing."""
        if self.once:
            return " The one message is sent at once."
        if not self.message:
            return " The webhook sends the message."
        return " The message is sent after a day." if self.patience >= _DAY else ""


_CONVERGE = 3600.0
"""site.yml renders files, builds, replaces containers and proves them; meanwhile they differ on purpose."""
_DAY = 86_400.0
_NETWORK = 900.0
"""What a network may do to a sync or a relay; either tries again by itself."""
_WORKER_HOST = 300.0
"""A playbook that replaces the Airflow image cuts worker hosts off until it comes to them."""
_LOG = "read its log with `docker compose logs <service>`, then run site.yml"

LIGHTS = {
    "docker-down": Light(
        CRITICAL, "Docker does not answer.", "Run `systemctl restart docker`, then `journalctl -u docker`."
    ),
    "live-restore-off": Light(
        WARNING,
        "Docker runs without `live-restore`: when it ends, all containers end with it.",
        "Run site.yml, which sets it in `/etc/docker/daemon.json`; if this stays, run"
        " `systemctl reload docker`.",
    ),
    "service-down": Light(
        CRITICAL,
        "A service that should run has no running container.",
        f"Run `docker compose ps --all`, {_LOG}.",
    ),
    "service-unhealthy": Light(
        CRITICAL,
        "A container fails its health check. It is restarted if that continues, three times an hour at most.",
        f"If restarts do not help, {_LOG}.",
    ),
    "service-restarts": Light(
        WARNING, "A container was started three times or more within the hour.", f"To find out why, {_LOG}."
    ),
    "service-out-of-memory": Light(
        WARNING,
        "The kernel ended a process of a service for want of memory within the hour: the service reached its"
        " limit, or the host has too little.",
        "Look for a task or a DAG that needs more than before, or raise its `service_limits` and run"
        " site.yml.",
    ),
    "image-differs": Light(
        WARNING,
        "A container runs another image than the files on the host name.",
        "Run site.yml, which replaces the container.",
        _CONVERGE,
    ),
    "version-differs": Light(
        WARNING,
        "The files on the host name another Airflow version than the release that was recorded last.",
        "Compare `.env` with `airflow-release releases`, then run site.yml.",
        _CONVERGE,
        needs=POSTGRES,
    ),
    "files-differ": Light(
        WARNING,
        "A file on the host is not as it was rendered.",
        "Move the change into the inventory or the templates, then run site.yml.",
        _CONVERGE,
    ),
    "pin-differs": Light(
        WARNING,
        "The inventory asks for another Airflow version than runs.",
        "Set `airflow_version` in the inventory to what runs, or run upgrade.yml.",
        _CONVERGE,
        needs=POSTGRES,
    ),
    "database-silent": Light(
        CRITICAL,
        "The metadata database does not answer.",
        "Read `docker compose logs postgres`.",
        needs=POSTGRES,
    ),
    "database-grows": Light(
        WARNING,
        "The metadata database grew by more than a tenth within a day, and by more than 1 GiB.",
        "Look for a DAG that writes large XComs or many runs.",
        needs=POSTGRES,
    ),
    "queue-silent": Light(
        CRITICAL, "Redis does not answer.", "Read `docker compose logs redis`.", needs=REDIS
    ),
    "scheduler-silent": Light(
        CRITICAL,
        "The scheduler has not said for 45 seconds that it is alive. It is restarted if that continues.",
        "If a restart does not help, read `docker compose logs airflow-scheduler`.",
        needs=SCHEDULER,
    ),
    "triggerer-silent": Light(
        CRITICAL,
        "The triggerer has not said for 45 seconds that it is alive. It is restarted if that continues.",
        "If a restart does not help, read `docker compose logs airflow-triggerer`.",
        needs=TRIGGERER,
    ),
    "dags-not-parsed": Light(
        CRITICAL,
        "No DAG file was parsed for five minutes. The scheduler, which does it, is then restarted.",
        "If a restart does not help, read `docker compose logs airflow-scheduler`.",
        needs=SCHEDULER,
    ),
    "tasks-wait": Light(
        CRITICAL,
        "Tasks wait for three minutes while the worker has free slots. It is restarted if that continues.",
        "If a restart does not help, read `docker compose logs airflow-worker`.",
        needs=POSTGRES,
    ),
    "queue-without-worker": Light(
        CRITICAL,
        "Tasks wait in a queue that nobody consumes: no worker of this host, and no worker host that takes"
        " tasks.",
        "Correct the task's `queue`, leave it out, or add a worker that consumes it. If a worker host should"
        " consume it, look at its own light.",
        45,
        needs=POSTGRES,
    ),
    "worker-host-silent": Light(
        CRITICAL,
        "A worker host has not been heard for more than a minute. It takes no tasks, and those that ran on it"
        " may be lost.",
        "On that host, in `/srv/airflow`, read `docker compose logs tunnel dag-follower`; then run site.yml.",
        _WORKER_HOST,
        needs=WEBHOOK,
    ),
    "worker-host-fenced": Light(
        WARNING,
        "A worker host is cut off from the broker because it did not prepare the live DAG commit: it takes no"
        " tasks until it has it.",
        "On that host, in `/srv/airflow`, read `docker compose logs dag-follower`, and look for a full disk.",
        _WORKER_HOST,
        needs=WEBHOOK,
    ),
    "worker-host-differs": Light(
        WARNING,
        "A worker host runs another release than the main host.",
        "Run site.yml, which gives it the main host's images.",
        _CONVERGE,
        needs=WEBHOOK,
    ),
    "main-host-silent": Light(
        CRITICAL,
        "The main host does not let this host connect to Redis: it is away, has cut this host off, or has"
        " another release. The worker takes no tasks.",
        "Look at the lights of the main host. If it has none for this host, read `docker compose logs tunnel`"
        " here in `/srv/airflow`; then run site.yml.",
        _CONVERGE,
        needs=TUNNEL,
    ),
    "run-overdue": Light(
        CRITICAL,
        "An unpaused DAG has free slots, and its next run should have been created five minutes ago.",
        "Read `docker compose logs airflow-scheduler`, and look at the DAG's import errors.",
        needs=SCHEDULER,
    ),
    "unit-failed": Light(
        WARNING,
        "A unit of the platform failed, is masked, or does not end.",
        "Run `systemctl status <unit>`, correct the cause, then `systemctl restart <unit>`.",
    ),
    "boot-off": Light(
        WARNING,
        "The platform runs, and nothing would start it at the next boot.",
        "Run `systemctl enable airflow.service`.",
    ),
    "timer-off": Light(
        WARNING,
        "A timer of the platform is off or masked, or did not run when it should have.",
        "Run `systemctl unmask <timer>`, then `systemctl enable --now <timer>`; if that finds none, run"
        " site.yml.",
    ),
    "operation-stands": Light(
        WARNING,
        "An operation has been active for more than six hours.",
        "Run `airflow-release status`, and the command of the operation again.",
        needs=POSTGRES,
    ),
    "disk-low": Light(
        WARNING,
        "A disk has less free than `disk_low_percent` (10 %), or is full within a week at its present"
        " growth.",
        "Free some space: old logs, or images that no container uses.",
    ),
    "disk-full": Light(
        CRITICAL,
        "A disk has less free than `disk_full_percent` (5 %), or is full within a day at its present growth."
        " Below that percentage no backup begins and no new commit goes live.",
        "Free some space now: Postgres stops when there is none.",
    ),
    "inodes-low": Light(
        CRITICAL,
        "A disk has less than 5 % of its inodes free.",
        "Remove many small files, such as old task logs.",
    ),
    "certificate-ends": Light(
        WARNING,
        "The certificate ends within three weeks.",
        "Renew it: put the new one on the host, or set `tls_certificate` and run site.yml.",
        needs=HAPROXY,
    ),
    "certificate-ended": Light(
        CRITICAL,
        "The certificate has ended or cannot be read.",
        "Renew it: put the new one on the host, or set `tls_certificate` and run site.yml.",
        needs=HAPROXY,
    ),
    "certificate-refused": Light(
        WARNING,
        "The new certificate on the host is not good; the one before it stays in force.",
        "Put a good one in its place, or remove the file; `journalctl -u airflow-certificate` says why.",
        needs=HAPROXY,
    ),
    "worker-certificate-ends": Light(
        WARNING,
        "This host's certificate between the main host and worker hosts ends within three weeks, or has"
        " ended: then a worker host takes no tasks.",
        "Run site.yml, which renews it.",
    ),
    "token-ends": Light(
        WARNING,
        "A Connect token ends within two weeks.",
        "Make a new token in 1Password and run site.yml with it.",
    ),
    "token-refused": Light(
        CRITICAL,
        "A Connect token has ended, Connect refuses it, or it does not give the vault: tasks cannot read"
        " their secrets, or the webhook its key.",
        "Look in 1Password whether the vault is there and the token may read it; if not, make a new token and"
        " run site.yml with it.",
    ),
    "token-shared": Light(
        NOTICE,
        "The Connect token of tasks reads the platform's own vault: whoever may merge a DAG can read its keys"
        " and passwords.",
        "Give tasks a vault and a token of their own, `op_task_vault_id` and `op_task_token`, and run"
        " site.yml.",
        needs=WEBHOOK,
    ),
    "connect-silent": Light(
        CRITICAL,
        "1Password Connect does not answer, or with an error or a redirect: tasks cannot read their secrets.",
        "Check the Connect server, its address and the way to it.",
    ),
    "clock-wrong": Light(
        CRITICAL,
        "The host's clock differs by more than a minute from Connect's, or from what the database knows.",
        "Set up time synchronisation on the host.",
    ),
    "clock-not-synchronised": Light(
        NOTICE, "The kernel's clock is not synchronised.", "Set up time synchronisation on the host."
    ),
    "backup-old": Light(
        WARNING,
        "The last good backup is more than two days old, or there is none.",
        "Run `ansible-playbook backup.yml`, and read `journalctl -u airflow-backup`.",
        needs=POSTGRES,
    ),
    "backup-failed": Light(
        WARNING,
        "The last backup, or its copy elsewhere, failed.",
        "Read `journalctl -u airflow-backup`.",
        needs=POSTGRES,
    ),
    "backup-not-copied": Light(
        WARNING,
        "The last good backup has no copy at the remote.",
        "Read `journalctl -u airflow-backup`, then run `ansible-playbook backup.yml`.",
        needs=POSTGRES,
    ),
    "clean-failed": Light(
        WARNING,
        "The last clean-up left something that should have gone: history, logs beyond their share of the"
        " disk, images, networks, databases.",
        "Read `journalctl -u airflow-clean`, then run `systemctl start airflow-clean`.",
        needs=POSTGRES,
    ),
    "clean-old": Light(
        WARNING,
        "Nothing has been cleaned up for more than two days.",
        "Run `systemctl start airflow-clean`, and read `journalctl -u airflow-clean`.",
        needs=POSTGRES,
    ),
    "commit-refused": Light(
        WARNING,
        "The newest commit of the DAGs is refused; the one before it stays live.",
        "Read the reason on the status page, then push a correction.",
        message=False,
        needs=WEBHOOK,
    ),
    "sync-failed": Light(
        WARNING,
        "The last sync of the DAGs failed; the next one is tried by itself.",
        "Run `dag-sync once`, which says why.",
        _NETWORK,
        needs=WEBHOOK,
    ),
    "never-synced": Light(
        WARNING,
        "No commit of the DAGs was synced yet.",
        "Run `dag-sync once`.",
        _CONVERGE,
        needs=WEBHOOK,
    ),
    "sync-state-unreadable": Light(
        WARNING,
        "The webhook cannot read what it knows of syncs.",
        "Move `/srv/airflow/delivery/state.json` away, then run `dag-sync once`.",
        needs=WEBHOOK,
    ),
    "dags-pinned": Light(
        WARNING,
        "The DAGs are pinned to a commit: pushes do not go live.",
        "When the rollback is over, run `dag-sync unpin`.",
        _DAY,
        needs=WEBHOOK,
    ),
    "infrastructure-changed": Light(
        WARNING,
        "Files outside the DAGs changed in the repository.",
        "Run site.yml.",
        _DAY,
        needs=WEBHOOK,
    ),
    "relay-silent": Light(
        WARNING,
        "The relay was not heard for two minutes: pushes go live when the timer runs.",
        "Read `journalctl -u smee-relay`.",
        needs=WEBHOOK,
    ),
    "relay-reconnecting": Light(
        WARNING,
        "The relay has no connection to its channel: pushes go live when the timer runs.",
        "Read `journalctl -u smee-relay`.",
        _NETWORK,
        needs=WEBHOOK,
    ),
    "key-spent": Light(
        WARNING,
        "The webhook key in 1Password was used and is not replaced yet: calls with it are refused.",
        "Read `docker compose logs webhook`; the token needs write access to the vault.",
        _NETWORK,
        needs=WEBHOOK,
    ),
    "jobs-not-kept": Light(
        WARNING,
        "The webhook cannot write its file: calls with a key get 503, and jobs are kept in memory.",
        "Read `docker compose logs webhook`; look for a full disk, or for who locks the file.",
        needs=WEBHOOK,
    ),
    "unit-restarted": Light(
        NOTICE,
        "Docker or containerd died within the last ten minutes, and systemd started it again. Containers and"
        " tasks went on.",
        "Nothing has to be done. To find out why, read `journalctl -u <unit>`.",
        patience=0,
        once=True,
    ),
    "host-restarted": Light(
        NOTICE,
        "The host went down without a shutdown, as in a power cut, and came back within the last ten minutes."
        " The platform came back by itself; tasks that ran are lost, and Airflow retries or fails them.",
        "Nothing has to be done for the platform. To find out why, read `journalctl --boot=-1`.",
        patience=0,
        once=True,
    ),
    "reboot-pending": Light(
        NOTICE,
        "An update asks for a reboot.",
        "Reboot the host at a quiet time; the platform comes back by itself.",
    ),
    "security-updates": Light(
        NOTICE, "Security updates are not installed.", "Run `apt-get upgrade` at a quiet time."
    ),
    "check-failed": Light(
        WARNING,
        "Something could not be looked at.",
        "Read `journalctl -u airflow-checker`.",
    ),
}


OF_THE_WEBHOOK = (
    *("commit-refused", "sync-failed", "never-synced", "sync-state-unreadable", "dags-pinned"),
    *("infrastructure-changed", "relay-silent", "relay-reconnecting", "key-spent", "jobs-not-kept"),
)
"""What only the webhook can know, and tells."""


@dataclass(frozen=True)
class Finding:
    """What is wrong now with one thing."""

    light: str
    subject: str
    """Which service, unit, disk or queue; with the light it makes the finding's identity."""
    what: str
    """One plain sentence."""
    mends: str = ""
    """The service whose restart may mend it, "" for none."""
    follows: bool = False
    """Whether another finding is its cause: then that one is told."""

    @property
    def key(self) -> str:
        """Return what tells it from every other."""
        return f"{self.light} {self.subject}".strip()

    @property
    def severity(self) -> str:
        """Return how grave it is."""
        return LIGHTS[self.light].severity

    @property
    def advice(self) -> str:
        """Return what to do; its commands name the subject, so that they can be copied."""
        advice = LIGHTS[self.light].advice
        return re.sub("<(?:service|unit|timer)>", lambda _: self.subject, advice)

    @property
    def anchor(self) -> str:
        """Return the line of docs/when-something-is-wrong.md about it."""
        return f"light-{self.light}"

    def document(self, since: str) -> dict[str, Any]:
        """Return it as health.json has it."""
        light = LIGHTS[self.light]
        return {
            "id": self.light,
            "severity": light.severity,
            "since": since,
            "subject": self.subject,
            "what": self.what,
            "advice": self.advice,
            "anchor": self.anchor,
        }


def verdict(severities: list[str]) -> str:
    """Return the whole platform's state: `ok`, `warning` or `critical`."""
    return next((grave for grave in (CRITICAL, WARNING) if grave in severities), "ok")


def table() -> str:
    """Return the table of docs/when-something-is-wrong.md."""
    lines = ["| light | host | severity | what it means | what to do |", "|---|---|---|---|---|"]
    lines += [
        f'| <a id="light-{name}"></a>`{name}` | {light.where} | {light.severity} |'
        f" {light.meaning}{light.note} | {light.advice} |"
        for name, light in LIGHTS.items()
    ]
    return "\n".join(lines) + "\n"
