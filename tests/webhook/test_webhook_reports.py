"""The host reports back: a commit status on GitHub, and Slack when a commit is refused."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from webhook.settings import Settings, github_repository_of
from webhook.sync import Outcome, Syncer

from sandbox import github, slack
from tests.served import served
from tests.webhook.doubles import GateDouble, Remote


@pytest.fixture
def github_url() -> Iterator[str]:
    with served(github.create_app("status-token")) as url:
        yield url


@pytest.fixture
def slack_url() -> Iterator[str]:
    with served(slack.create_app()) as url:
        yield url


@pytest.fixture
def reporting(settings: Settings, github_url: str, slack_url: str) -> Settings:
    return replace(
        settings,
        github_api=github_url,
        github_repository="team/airflow",
        github_token="status-token",
        slack_webhook_url=f"{slack_url}/services/T/B/X",
        status_page_url="http://atd-data03:8081/",
    )


def statuses(settings: Settings, commit: str) -> list[dict[str, Any]]:
    url = f"{settings.github_api}/repos/team/airflow/commits/{commit}/statuses"
    found: list[dict[str, Any]] = httpx.get(url, timeout=30).json()
    return found


def messages(slack_url: str) -> list[str]:
    return [message["payload"]["text"] for message in httpx.get(f"{slack_url}/messages", timeout=30).json()]


def test_success_is_told_once(reporting: Settings, remote: Remote, slack_url: str) -> None:
    Syncer(reporting).sync("test")
    Syncer(reporting).sync("test")
    (status,) = statuses(reporting, remote.head)
    assert (status["state"], status["context"], status["description"]) == (
        "success",
        "airflow/live",
        "live on production",
    )
    assert status["target_url"] == "http://atd-data03:8081/"
    assert messages(slack_url) == []


def test_refusal_is_told_with_its_reason(
    reporting: Settings, remote: Remote, gate: GateDouble, slack_url: str
) -> None:
    Syncer(reporting).sync("test")
    live = remote.head
    refused = remote.commit({"dags/two.py": "import nope\n"}, "Import what is not there")
    message = "Traceback:\n  File x\nModuleNotFoundError: No module named 'nope' " + "x" * 300 + "\n"
    gate.problems = lambda tree: [{"kind": "import", "path": "dags/two.py", "message": message}]
    for _ in range(2):
        Syncer(reporting).sync("test")
    (status,) = statuses(reporting, refused)
    assert status["state"] == "failure"
    assert "dags/two.py: ModuleNotFoundError: No module named 'nope'" in status["description"]
    (text,) = messages(slack_url)
    for part in (
        refused[:12],
        live[:12],
        "Ann Example",
        "Import what is not there",
        "No module named 'nope'",
    ):
        assert part in text

    gate.problems = lambda tree: []
    Syncer(reporting).sync("test")
    assert [status["state"] for status in statuses(reporting, refused)] == ["success", "failure"]


def test_name_that_is_not_utf_8_is_told(
    reporting: Settings, remote: Remote, gate: GateDouble, slack_url: str
) -> None:
    Syncer(reporting).sync("test")
    refused = remote.commit({"dags/two.py": "two = 2\n"})
    gate.problems = lambda tree: [
        {"kind": "import", "path": "dags/caf\udce9\n.py", "message": "No module named '\udce9'"}
    ]
    assert Syncer(reporting).sync("test").outcome is Outcome.REFUSED
    (status,) = statuses(reporting, refused)
    told = r"dags/caf\xe9\n.py: No module named '\udce9'"
    assert told in status["description"]
    assert told in messages(slack_url)[0]


def test_nothing_from_a_commit_is_markup(
    reporting: Settings, remote: Remote, gate: GateDouble, slack_url: str
) -> None:
    """Whoever may push may not notify the channel, or put a link of their own under the platform's name."""
    Syncer(reporting).sync("test")
    remote.commit(
        {"dags/two.py": "x\n"}, "<!channel> see <https://evil.example|the page> & https://evil.example"
    )
    reason = "Error: <!here> <https://evil.example|fix>\n*Commit*: another"
    gate.problems = lambda tree: [{"kind": "import", "path": "dags/<@U1>.py", "message": reason}] * 7
    Syncer(reporting).sync("test")
    (message,) = httpx.get(f"{slack_url}/messages", timeout=30).json()
    (section,) = message["payload"]["blocks"]
    assert section["text"]["verbatim"] is True
    text = section["text"]["text"]
    assert (
        "*Subject*: &lt;!channel&gt; see &lt;https://evil.example|the page&gt; &amp; https://evil.example\n"
        in text
    )
    assert "• dags/&lt;@U1&gt;.py: *Commit*: another" in text
    assert "… and 2 more" in text
    assert text.replace("<http://atd-data03:8081/>", "").count("<") == 0


@pytest.mark.parametrize(
    "volatile",
    ["<function load at 0x7f{:010x}>", "timed out after {}.5 s, PID: 4{}"],
    ids=["an address", "a time and a process id"],
)
def test_same_reason_is_told_once(
    reporting: Settings, remote: Remote, gate: GateDouble, slack_url: str, volatile: str
) -> None:
    """However often the commit is parsed: what changes with every process is no news."""
    Syncer(reporting).sync("test")
    refused = remote.commit({"dags/two.py": "two = 2\n"})
    attempts = itertools.count()

    def problems(tree: Path) -> list[dict[str, str]]:
        attempt = next(attempts)
        message = volatile.format(attempt, attempt)
        return [{"kind": "import", "path": "dags/two.py", "message": message}]

    gate.problems = problems
    for _ in range(3):
        Syncer(reporting).sync("test")
    assert len(messages(slack_url)) == 1
    assert [status["state"] for status in statuses(reporting, refused)] == ["failure"]

    gate.problems = lambda tree: [{"kind": "import", "path": "dags/two.py", "message": "another"}]
    Syncer(reporting).sync("test")
    assert len(messages(slack_url)) == 2


def test_failed_sync_is_an_error(reporting: Settings, remote: Remote, gate: GateDouble) -> None:
    gate.error = "out of order"
    Syncer(reporting).sync("test")
    (status,) = statuses(reporting, remote.head)
    assert status["state"] == "error"
    assert "out of order" in status["description"]


def test_pinned_host_says_so(reporting: Settings, remote: Remote) -> None:
    first = remote.head
    Syncer(reporting).sync("test")
    Syncer(reporting).pin(first)
    second = remote.commit({"dags/two.py": "two = 2\n"})
    Syncer(reporting).sync("test")
    (status,) = statuses(reporting, second)
    assert (status["state"], status["description"]) == (
        "pending",
        f"not live: the host is pinned to {first[:12]}",
    )


def test_unreachable_listener_delays_nothing_and_is_told_later(reporting: Settings, remote: Remote) -> None:
    away = replace(reporting, github_api="http://127.0.0.1:9", slack_webhook_url="http://127.0.0.1:9")
    assert Syncer(away).sync("test").outcome is Outcome.SWITCHED
    assert statuses(reporting, remote.head) == []
    Syncer(reporting).sync("test")
    assert [status["state"] for status in statuses(reporting, remote.head)] == ["success"]


def test_reports_go_through_the_proxy(
    reporting: Settings, remote: Remote, gate: GateDouble, slack_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the environment names it: here the stand-ins, which answer for whatever name they are asked."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", slack_url)
    away = replace(reporting, slack_webhook_url="http://hooks.slack.invalid/services/T/B/X")
    gate.problems = lambda tree: [{"kind": "import", "path": "dags/one.py", "message": "no"}]
    Syncer(replace(away, github_token=None)).sync("test")
    monkeypatch.delenv("http_proxy")
    assert len(messages(slack_url)) == 1


def test_wrong_token_is_no_failure(reporting: Settings, remote: Remote) -> None:
    assert Syncer(replace(reporting, github_token="wrong")).sync("test").outcome is Outcome.SWITCHED
    assert statuses(reporting, remote.head) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@github.com:cityofaustin/atd-airflow.git", "cityofaustin/atd-airflow"),
        ("ssh://git@github.com/cityofaustin/atd-airflow", "cityofaustin/atd-airflow"),
        ("https://github.com/cityofaustin/atd-airflow.git/", "cityofaustin/atd-airflow"),
        ("plain", None),
    ],
)
def test_repository_name_of_url(url: str, name: str | None) -> None:
    assert github_repository_of(url) == name
