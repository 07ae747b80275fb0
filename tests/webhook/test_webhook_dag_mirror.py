"""What dag-mirror may read: the mirror, by its own git, as a user who is not the webhook's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.missing import needs
from tests.webhook.doubles import wait_until
from tests.webhook.network import free_port

ROOT = Path(__file__).resolve().parents[2]
OTHER = 50002

pytestmark = needs("git", root=True)


def as_other(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=OTHER,
        group=OTHER,
        extra_groups=[],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/"},
    )


def command() -> list[str]:
    """Return the service's own command, but for its addresses."""
    text = (ROOT / "templates/srv/airflow/docker-compose.yaml.j2").read_text()
    part = text.split("\n  dag-mirror:\n")[1].split("\n    networks:")[0]
    found: list[str] = yaml.safe_load(part[part.index("    command:") :])["command"]
    assert f'user: "{OTHER}:{OTHER}"' in part
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that another user may enter: pytest's own are root's, with all that is above them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_mirror_is_read_and_nothing_beside_it(folder: Path) -> None:
    delivery = folder / "delivery"
    delivery.mkdir()
    mirror = delivery / "mirror.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    work = folder / "work"
    subprocess.run([*git, "init", "-q", "-b", "production", str(work)], check=True)
    subprocess.run([*git, "-C", str(work), "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(mirror)], check=True, umask=0o022)
    (delivery / "webhook.key").touch(mode=0o600)
    for path in (delivery, *delivery.rglob("*")):
        os.chown(path, 50001, 0)
    delivery.chmod(0o711)
    assert as_other("cat", str(delivery / "webhook.key")).returncode != 0
    assert as_other("ls", str(delivery)).returncode != 0
    port = free_port()
    words = [word.replace("${AIRFLOW_PROJ_DIR}/delivery", str(delivery)) for word in command()]
    words = [word.replace("0.0.0.0", "127.0.0.1").replace("9418", str(port)) for word in words]
    daemon = subprocess.Popen(
        words,
        user=OTHER,
        group=OTHER,
        extra_groups=[],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": "/"},
        start_new_session=True,
    )

    def answer() -> subprocess.CompletedProcess[str] | None:
        asked = as_other("git", "ls-remote", f"git://127.0.0.1:{port}/mirror.git", "refs/heads/production")
        return asked if asked.returncode == 0 or daemon.poll() is not None else None

    try:
        asked = wait_until(answer, what="an answer of the daemon, or its end")
        assert "refs/heads/production" in asked.stdout, asked.stderr
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()
