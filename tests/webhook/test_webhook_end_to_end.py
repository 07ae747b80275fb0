"""The whole chain on loopback: git push, the call, channel, relay, gunicorn, sync, live, commit status."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from onepasswordconnectsdk.client import Client
from onepasswordconnectsdk.models import Field, FieldSection, Item, ItemVault, Section
from webhook.announce import announce

from sandbox import connect, git_host, github, smee
from tests.served import TOKEN, VAULT_ID, served
from tests.webhook.doubles import GateDouble, Remote, files_below, wait_until
from tests.webhook.network import free_port

KEY = "the-webhook-key"
Start = Callable[..., subprocess.Popen[str]]


@dataclass
class Chain:
    """A host with its outside world."""

    working_copy: Remote
    channel: str
    github: str
    webhook: str
    current: Path
    gunicorn: subprocess.Popen[str]
    restart: Callable[[], subprocess.Popen[str]]

    def push(self, files: dict[str, str | bytes | None]) -> str:
        commit = self.working_copy.commit(files)
        self.working_copy.git("push", "--quiet", "origin", "production")
        return commit

    def live(self) -> str:
        return self.current.resolve().name

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.webhook}/healthz").is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def chain(start: Start, gate: GateDouble, environment: dict[str, str], tmp_path: Path) -> Iterator[Chain]:
    token = tmp_path / "token"
    token.write_text("relay-token")
    port = free_port()
    with (
        served(git_host.create_app(str(tmp_path / "host"), ["team/airflow"])) as git_url,
        served(smee.create_app()) as smee_url,
        served(github.create_app("status-token")) as github_url,
        served(connect.create_app(tmp_path / "connect", TOKEN, VAULT_ID)) as connect_url,
    ):
        section = FieldSection(id="production")
        item = Item(
            title="Airflow webhook",
            category="API_CREDENTIAL",
            vault=ItemVault(id=VAULT_ID),
            sections=[Section(id="production", label="production")],
            fields=[Field(label="key", value=KEY, type="CONCEALED", section=section)],
        )
        client = Client(connect_url, TOKEN)
        client.create_item(VAULT_ID, item)
        client.session.close()
        working_copy = Remote(tmp_path / "working-copy")
        working_copy.git("remote", "add", "origin", f"{git_url}/team/airflow.git")
        working_copy.commit({f"dags/dag_{number}.py": "one = 1\n" for number in range(80)})
        working_copy.git("push", "--quiet", "origin", "production")
        environment.update(
            DAG_REPOSITORY=f"{git_url}/team/airflow.git",
            RELAY_TOKEN_FILE=str(token),
            OP_CONNECT=connect_url,
            OP_API_TOKEN=TOKEN,
            OP_VAULT_ID=VAULT_ID,
            GITHUB_API_URL=github_url,
            GITHUB_STATUS_TOKEN="status-token",
            AIRFLOW_URL="http://127.0.0.1:9",
        )

        def restart() -> subprocess.Popen[str]:
            bind = f"--bind=127.0.0.1:{port}"
            return start("gunicorn", "--config=python:webhook.gunicorn", bind, "webhook.app:create_app()")

        webhook = f"http://127.0.0.1:{port}"
        chain = Chain(
            working_copy,
            f"{smee_url}/channel",
            github_url,
            webhook,
            tmp_path / "trees/current",
            restart(),
            restart,
        )
        wait_until(chain.healthy, what="gunicorn")
        start(
            "webhook.relay",
            *("--source", chain.channel, "--target", f"{webhook}/webhook", "--token-file", str(token)),
        )
        page = {"Accept": "application/json"}
        wait_until(lambda: httpx.get(webhook, headers=page).json()["relay"], what="the relay")
        wait_until(chain.current.exists, what="the first sync")
        yield chain


def test_push_goes_live_and_is_reported(chain: Chain) -> None:
    commit = chain.push({"dags/new.py": "new = 1\n"})
    announce(chain.channel, KEY, {"commit": commit})
    wait_until(lambda: chain.live() == commit, what="live")
    assert files_below(chain.current) == chain.working_copy.tree(commit)
    url = f"{chain.github}/repos/team/airflow/commits/{commit}/statuses"
    wait_until(
        lambda: [status["state"] for status in httpx.get(url).json()] == ["success"], what="the status"
    )


def test_replayed_announcement_changes_nothing(chain: Chain) -> None:
    """Anyone can read the channel and send what he read again."""
    seen: list[str] = []
    with httpx.stream("GET", chain.channel, headers={"Accept": "text/event-stream"}, timeout=5) as listener:
        lines = listener.iter_lines()
        assert any("ready" in line for line in lines)
        announce(chain.channel, KEY, {"commit": chain.push({"dags/new.py": "new = 1\n"})})
        seen.append(next(line for line in lines if line.startswith("data: ") and "body" in line))
    wait_until(lambda: chain.live() == chain.working_copy.head)
    assert KEY not in seen[0]
    live = chain.live()
    chain.push({"dags/new.py": "new = 2\n"})
    replay = httpx.post(
        f"{chain.channel}/redeliver", content=seen[0][6:], headers={"Content-Type": "application/json"}
    )
    assert replay.status_code == 200

    def counted() -> bool:
        return (
            'webhook_calls_total{endpoint="webhook",status="409"} 1.0'
            in httpx.get(f"{chain.webhook}/metrics").text
        )

    wait_until(counted, what="the refusal")
    assert chain.live() == live


def test_webhook_killed_in_a_sync_and_restarted(chain: Chain, gate: GateDouble) -> None:
    old = chain.live()
    commit = chain.push({"dags/new.py": "new = 1\n"})
    checked = len(gate.checked)
    killed = threading.Event()
    gate.before_answer = killed.wait
    announce(chain.channel, KEY, {"commit": commit})
    wait_until(lambda: len(gate.checked) > checked)
    children = subprocess.run(["pgrep", "-P", str(chain.gunicorn.pid)], capture_output=True, text=True).stdout
    chain.gunicorn.kill()
    subprocess.run(["kill", "-9", *children.split()], check=False)
    chain.gunicorn.wait()
    killed.set()
    assert chain.live() == old
    assert files_below(chain.current) == chain.working_copy.tree(old)
    chain.restart()
    wait_until(lambda: chain.live() == commit, what="live after the restart")
    assert files_below(chain.current) == chain.working_copy.tree(commit)


def test_gunicorn_stops_cleanly(chain: Chain) -> None:
    chain.gunicorn.terminate()
    assert chain.gunicorn.wait(60) == 0
