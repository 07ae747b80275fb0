"""GitHub's workflows: valid by their schema, and the one that deploys does what the host expects."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from onepasswordconnectsdk.client import Client
from onepasswordconnectsdk.models import Field, FieldSection, Item, ItemVault, Section
from webhook.announce import AnnounceError, announce, main
from webhook.keys import signature

from sandbox import connect
from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer, served
from tests.webhook.test_webhook_relay import Webhook

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github/workflows"
CHANNEL_KEY = "the-webhook-key"


def load(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return found


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_workflow_follows_its_schema(path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        str(path),
    ]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_deployment_runs_for_every_change_of_the_branch() -> None:
    workflow = load("production_deployment.yml")
    on = workflow[True]  # YAML 1.1 reads the key `on` so
    assert on["pull_request"] == {"types": ["closed"], "branches": ["production"]}
    assert on["pull_request_target"] == {"types": ["closed"], "branches": ["production"]}
    assert on["push"] == {"branches": ["production"]}
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    # GitHub cancels what waits in a group when another run comes, though that may announce nothing.
    assert "concurrency" not in {**workflow, **job}


OWN, FORK = "city/atd-airflow", "somebody/atd-airflow"


def pull_request(merged: bool, head: str | None) -> dict[str, Any]:
    """Return a closed pull request; without a head its fork is gone."""
    return {"pull_request": {"merged": merged, "head": {"repo": head and {"full_name": head}}}}


@pytest.mark.parametrize(
    ("announced", "name", "event"),
    [
        (True, "pull_request", pull_request(True, OWN)),
        (False, "pull_request", pull_request(False, OWN)),
        (False, "pull_request", pull_request(True, FORK)),  # has no secrets, and would fail
        (False, "pull_request", pull_request(True, None)),
        (False, "pull_request_target", pull_request(True, OWN)),  # announced by its own run
        (False, "pull_request_target", pull_request(False, FORK)),
        (True, "pull_request_target", pull_request(True, FORK)),
        (True, "pull_request_target", pull_request(True, None)),
        (True, "push", {"deleted": False}),
        (False, "push", {"deleted": True}),  # there is nothing to check out
        (True, "workflow_dispatch", {}),
    ],
)
def test_every_change_is_announced_by_a_run_that_can(
    announced: bool, name: str, event: dict[str, Any]
) -> None:
    (job,) = load("production_deployment.yml")["jobs"].values()
    github = {"event_name": name, "repository": OWN, "event": event}
    assert bool(evaluate(job["if"], github)) is announced


def evaluate(condition: str, github: dict[str, Any]) -> object:
    """Evaluate a condition of a workflow, whose operators are Python's by other names, for an event."""

    def value(match: re.Match[str]) -> str:
        found: Any = github
        for name in match[0].split(".")[1:]:
            found = found.get(name) if isinstance(found, dict) else None
        return repr(found)

    text = condition.replace("&&", " and ").replace("||", " or ")
    text = re.sub(r"!(?!=)", " not ", text)
    return eval(" ".join(re.sub(r"github\.[\w.]+", value, text).split()))


def test_nothing_of_a_forks_branch_runs_where_secrets_are() -> None:
    """Whoever sends a pull request chooses its branch's content, and every word of it in the event."""
    (job,) = load("production_deployment.yml")["jobs"].values()
    checkouts = [step["with"] for step in job["steps"] if "actions/checkout" in step.get("uses", "")]
    assert [(with_["ref"], with_["persist-credentials"]) for with_ in checkouts] == [("production", False)]
    assert "repository" not in checkouts[0]
    assert not [step["run"] for step in job["steps"] if "${{" in step.get("run", "")]


USES = [
    (path.name, line.strip())
    for path in sorted(WORKFLOWS.glob("*.yml"))
    for line in path.read_text().splitlines()
    if "uses:" in line
]


@pytest.mark.parametrize(("file", "line"), USES)
def test_action_is_pinned_by_commit(file: str, line: str) -> None:
    """A tag can be moved to another commit, and was: CVE-2025-30066. The comment is for people."""
    assert re.fullmatch(r"- uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


LOCKS = ["requirements.lock", "webhook/requirements.lock", *ROOT.glob("images/airflow/locks/*.txt")]


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_lock_file_has_hashes(lock: str) -> None:
    """One package without makes pip refuse the file, and uv take whatever an index gives."""
    text = (ROOT / lock).read_text().replace("\\\n", "")
    packages = [line for line in text.splitlines() if not line.startswith("#")]
    assert packages
    assert [line for line in packages if not re.search(r"==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


def test_workflow_installs_what_has_the_right_hash_and_nothing_else() -> None:
    (job,) = load("production_deployment.yml")["jobs"].values()
    (install,) = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
    assert install == "python -m pip install --require-hashes --requirement webhook/requirements.lock"


def test_ci_runs_bin_test() -> None:
    (job,) = load("ci.yml")["jobs"].values()
    assert job["steps"][-1]["run"] == "bin/test"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    webhook.server.start()
    yield webhook
    webhook.server.stop()


@pytest.fixture
def connect_server(webhook: Webhook, tmp_path: Path) -> Iterator[FaultyServer]:
    """A vault as the secrets role leaves it."""
    section = FieldSection(id="production")
    fields = [
        Field(label="key", value=CHANNEL_KEY, type="CONCEALED", section=section),
        Field(label="channel", value=f"{webhook.server.url}/webhook", type="URL", section=section),
    ]
    server = FaultyServer(connect.create_app(tmp_path / "connect", TOKEN, VAULT_ID))
    with served(server) as server.url:
        client = Client(server.url, TOKEN)
        client.create_item(
            VAULT_ID,
            Item(
                title="Airflow webhook",
                category="API_CREDENTIAL",
                vault=ItemVault(id=VAULT_ID),
                sections=[Section(id="production", label="production")],
                fields=fields,
            ),
        )
        client.session.close()
        yield server


@pytest.fixture
def environ(connect_server: FaultyServer) -> dict[str, str]:
    """The variables of the workflow."""
    return {"OP_CONNECT": connect_server.url, "OP_API_TOKEN": TOKEN, "OP_VAULT_ID": VAULT_ID}


def test_announcement_is_signed_and_hides_the_key(environ: dict[str, str], webhook: Webhook) -> None:
    assert main(["--commit", "abc"], environ) == 0
    ((headers, body),) = webhook.calls
    assert body == b'{"commit": "abc"}'
    expected = signature(CHANNEL_KEY, headers["x-webhook-timestamp"], headers["x-webhook-nonce"], body)
    assert headers["x-webhook-signature"] == f"sha256={expected}"
    assert CHANNEL_KEY not in str(headers)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda environ: environ.pop("OP_VAULT_ID"), 2),
        (lambda environ: environ.update(OP_CONNECT="http://127.0.0.1:9"), 1),
        (lambda environ: environ.update(OP_API_TOKEN="wrong"), 1),
        (lambda environ: environ.update(WEBHOOK_KEY_FIELD="staging.key"), 1),
    ],
    ids=["no variable", "Connect away", "wrong token", "no field"],
)
def test_workflow_fails_when_the_vault_cannot_be_read(
    environ: dict[str, str], change: Callable[[dict[str, str]], object], code: int
) -> None:
    change(environ)
    assert main([], environ, pause=0.01) == code


@pytest.mark.parametrize("status", ["401 X", "429 X", "500 X", "503 X"])
def test_key_is_read_again_when_connect_stumbles(
    environ: dict[str, str], connect_server: FaultyServer, webhook: Webhook, status: str
) -> None:
    """It is restarted, or synchronises with 1Password; nobody announces the commit a second time."""
    connect_server.faults.extend(Fault(status) for _ in range(3))
    assert main(["--commit", "abc"], environ, pause=0.01) == 0
    assert [body for _, body in webhook.calls] == [b'{"commit": "abc"}']


def test_post_waits_as_long_as_the_channel_asks(webhook: Webhook) -> None:
    webhook.setbacks = [("/webhook", 503, "2")]
    announce(f"{webhook.server.url}/webhook", "key", {}, pause=0.01)
    assert time.monotonic() - webhook.turned_away[0] >= 2


def test_post_is_tried_again_with_a_new_nonce(webhook: Webhook) -> None:
    webhook.answers = [503, 429]
    announce(f"{webhook.server.url}/webhook", "key", {}, pause=0.01)
    assert len(webhook.calls) == 1


@pytest.mark.parametrize("channel", ["http://127.0.0.1:9/secret-channel", "no address"])
def test_post_that_fails_is_a_failure_that_hides_the_address(channel: str) -> None:
    with pytest.raises(AnnounceError) as caught:
        announce(channel, "key", {}, pause=0.01)
    assert "secret-channel" not in str(caught.value)


def test_refused_post_is_a_failure(webhook: Webhook) -> None:
    webhook.answers = [404]
    with pytest.raises(AnnounceError, match="HTTP 404"):
        announce(f"{webhook.server.url}/webhook", "key", {}, pause=0.01)
