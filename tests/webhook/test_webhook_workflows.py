"""GitHub's workflows: valid by their schema, and the one that deploys does what the host expects."""

import subprocess
import sys
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
from tests.served import TOKEN, VAULT_ID, served
from tests.webhook.test_webhook_relay import Webhook

WORKFLOWS = Path(__file__).resolve().parents[2] / ".github/workflows"
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


def test_deployment_runs_for_merged_pull_requests_only() -> None:
    workflow = load("production_deployment.yml")
    on = workflow[True]  # YAML 1.1 reads the key `on` so
    assert on["pull_request"] == {"types": ["closed"], "branches": ["production"]}
    (job,) = workflow["jobs"].values()
    assert job["if"] == "github.event_name == 'workflow_dispatch' || github.event.pull_request.merged"
    assert workflow["permissions"] == {"contents": "read"}
    assert not workflow["concurrency"]["cancel-in-progress"]


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
def environ(webhook: Webhook, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A vault as the secrets role leaves it, and the variables of the workflow."""
    section = FieldSection(id="production")
    fields = [
        Field(label="key", value=CHANNEL_KEY, type="CONCEALED", section=section),
        Field(label="channel", value=f"{webhook.server.url}/webhook", type="URL", section=section),
    ]
    with served(connect.create_app(tmp_path / "connect", TOKEN, VAULT_ID)) as url:
        client = Client(url, TOKEN)
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
        yield {"OP_CONNECT": url, "OP_API_TOKEN": TOKEN, "OP_VAULT_ID": VAULT_ID}


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
    assert main([], environ) == code


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
