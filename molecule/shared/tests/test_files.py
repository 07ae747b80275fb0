"""What is on the host's disk: who may read it, and that no file which others read has secrets in it."""

from __future__ import annotations

import json

import pytest
from expected import DIRECTORY, SECRETS
from testinfra.host import Host

ENV_FILES = [
    ".env",
    *(f"env/{name}.env" for name in ("airflow", "onepassword", "slack", "init", "next")),
    *(f"env/{name}.env" for name in ("postgres", "redis", "flower", "webhook", "checker")),
]
RENDERED = [
    "docker-compose.yaml",
    ".env",
    "haproxy/haproxy.cfg",
    "haproxy/maintenance.html",
    "docker-socket-proxy/policy.json",
    "weather/nginx.conf",
    "build/docker-bake.json",
    "smoke.json",
]


@pytest.mark.parametrize("path", ENV_FILES)
def test_env_file_is_for_root_alone(host: Host, path: str) -> None:
    """Whoever reads these files has the platform."""
    file = host.file(f"{DIRECTORY}/{path}")
    assert (file.user, file.group, oct(file.mode)) == ("root", "root", "0o600")


def test_what_the_vault_gave_last_is_for_root_alone(host: Host, secrets: dict[str, str]) -> None:
    """They are for a converge while Connect is away, which has no use for the webhook key."""
    directory, file = (host.file(f"{DIRECTORY}/secrets{name}") for name in ("", "/last_known.json"))
    assert (directory.user, oct(directory.mode)) == ("root", "0o700")
    assert (file.user, oct(file.mode)) == ("root", "0o600")
    kept = json.loads(file.content_string)["secrets"]
    assert (kept["fernet_key"], kept["webhook_key"]) == (secrets["Fernet key"], "")


def test_there_is_one_env_file_for_each_privilege_level(host: Host) -> None:
    """A file that is not in the list above is not checked by it."""
    assert set(host.file(f"{DIRECTORY}/env").listdir()) == {
        path.removeprefix("env/") for path in ENV_FILES if path != ".env"
    }


@pytest.mark.parametrize(
    ("path", "user", "mode"),
    [
        (DIRECTORY, "root", "0o755"),
        (f"{DIRECTORY}/env", "root", "0o700"),
        (f"{DIRECTORY}/haproxy", "root", "0o755"),
        (f"{DIRECTORY}/docker-socket-proxy", "root", "0o755"),
        (f"{DIRECTORY}/weather", "root", "0o755"),
        (f"{DIRECTORY}/plugins", "root", "0o755"),
    ],
)
def test_directory_is_roots_to_change(host: Host, path: str, user: str, mode: str) -> None:
    """Containers run as other users, so that what is root's is read-only to them twice over."""
    directory = host.file(path)
    assert directory.is_directory
    assert (directory.user, oct(directory.mode)) == (user, mode)


def test_logs_belong_to_airflow(host: Host, settings: dict[str, str]) -> None:
    """The one directory of the host that Airflow writes to."""
    logs = host.file(f"{DIRECTORY}/logs")
    assert (logs.uid, oct(logs.mode)) == (int(settings["AIRFLOW_UID"]), "0o775")


@pytest.mark.parametrize(
    ("path", "mode"),
    [("trees", "0o755"), ("delivery", "0o700"), ("webhook", "0o700")],
)
def test_delivery_belongs_to_the_webhook(host: Host, path: str, mode: str) -> None:
    """It alone moves commits, and nobody else reads its key."""
    directory = host.file(f"{DIRECTORY}/{path}")
    assert (directory.uid, oct(directory.mode)) == (50001, mode)


@pytest.mark.parametrize(
    "path",
    [
        f"{DIRECTORY}/docker-compose.yaml",
        f"{DIRECTORY}/haproxy/haproxy.cfg",
        f"{DIRECTORY}/docker-socket-proxy/policy.json",
        f"{DIRECTORY}/weather/nginx.conf",
        "/etc/docker/daemon.json",
        "/etc/systemd/system/airflow.service",
        "/etc/systemd/system/docker.service.d/airflow.conf",
        "/etc/systemd/system/docker.service.d/restart.conf",
    ],
)
def test_settings_are_readable_and_roots_to_change(host: Host, path: str) -> None:
    """Containers of other users read them; nobody but Ansible writes them."""
    file = host.file(path)
    assert (file.user, file.group, oct(file.mode)) == ("root", "root", "0o644")


def test_nothing_is_writable_by_everybody(host: Host) -> None:
    """Any process of the host could put code there that Airflow runs."""
    found = host.check_output(f"find {DIRECTORY} -xdev -perm -o+w ! -type l")
    assert found == ""


@pytest.fixture(scope="module")
def rendered(host: Host) -> dict[str, str]:
    """The text of every file that is not meant to hold a secret."""
    return {path: host.file(f"{DIRECTORY}/{path}").content_string for path in RENDERED}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("path", RENDERED)
def test_no_secret_outside_env(
    rendered: dict[str, str], secrets: dict[str, str], path: str, secret: str
) -> None:
    """These files are read by everybody on the host, sent to colleagues and pasted into tickets."""
    assert rendered[path]
    assert secrets[secret] not in rendered[path]


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_in_the_journal(host: Host, secrets: dict[str, str], journal: str, secret: str) -> None:
    """Ansible's modules write their arguments there: a forgotten no_log shows."""
    assert "Invoked with" in journal, "Ansible's own lines are missing: this would prove nothing"
    assert secrets[secret] not in journal


@pytest.fixture(scope="module")
def journal(host: Host) -> str:
    """Everything that the host wrote down since it was made."""
    text: str = host.check_output("journalctl --no-pager --quiet --output cat")
    return text


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_in_a_log(logs: str, secrets: dict[str, str], secret: str) -> None:
    """Logs are kept, copied and read by more people than the vault."""
    assert secrets[secret] not in logs


@pytest.fixture(scope="module")
def logs(host: Host) -> str:
    """The last lines of every container's log, and every line that a task wrote."""
    return "".join(
        host.check_output(command)
        for command in (
            f"cd {DIRECTORY} && timeout 60 docker compose logs --no-color --tail 2000 2>&1",
            f"find {DIRECTORY}/logs -path '*/dag_id=*' -name '*.log' -exec cat {{}} +",
        )
    )
