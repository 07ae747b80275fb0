"""The role `secrets`, run by the real ansible-playbook and ansible.cfg against the sandbox."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from sandbox.connect import Reader, create_app
from tests.plugins.conftest import ROOT, write
from tests.served import TOKEN, VAULT_ID, Fault, FaultyServer

DEFAULTS = yaml.safe_load((ROOT / "roles/secrets/defaults/main.yml").read_text())
ITEMS = {entry["name"]: entry for entry in DEFAULTS["secrets_items"]}
GENERATED = {name for name, entry in ITEMS.items() if "generate" in entry}

Play = Callable[..., "Result"]


class Result:
    """What a run printed, and the fact that it set for each host."""

    def __init__(self, run: subprocess.CompletedProcess[str], facts: Path) -> None:
        self.code = run.returncode
        self.output = run.stdout + run.stderr
        self.secrets = {path.name: json.loads(path.read_text()) for path in facts.iterdir()}
        changes = re.findall(r"changed=(\d+)", run.stdout)
        self.changed = sum(int(number) for number in changes)


@pytest.fixture
def play(tmp_path: Path, server: FaultyServer) -> Play:
    """Return a function that runs the role; the fact is written to files, on the side, to be looked at."""

    def run(*options: str, hosts: str = "web1,", **variables: Any) -> Result:
        facts = tmp_path / "facts"
        facts.mkdir(exist_ok=True)
        for old in facts.iterdir():
            old.unlink()
        inputs = {
            "secrets_connect_url": server.url,
            "secrets_connect_token": TOKEN,
            "secrets_vault_id": VAULT_ID,
            "secrets_environment": "development",
            **variables,
        }
        document = {
            "name": "Fetch",
            "hosts": "all",
            "gather_facts": False,
            "vars": {key: value for key, value in inputs.items() if value is not None},
            "roles": ["secrets"],
            "tasks": [write("secrets", f"'{facts}/' ~ inventory_hostname", tmp_path)],
        }
        playbook = tmp_path / "play.yml"
        playbook.write_text(yaml.safe_dump([document], sort_keys=False))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OP_", "ANSIBLE_"))}
        environment |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "0"}
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            hosts,
            *options,
            str(playbook),
        ]
        finished = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180
        )
        return Result(finished, facts)

    return run


def test_first_run_generates_and_later_runs_change_nothing(play: Play, server: FaultyServer) -> None:
    """Nor does any of them, or a check before, print a value, however much it is asked to tell."""
    check = play("--check", "-vvv")
    assert check.code == 0, check.output
    assert "placeholders" in check.output
    assert {method for method, _ in server.requests} == {"GET"}
    assert set(check.secrets["web1"]) == set(ITEMS)
    assert all(check.secrets["web1"][name].startswith("placeholder-") for name in GENERATED)

    first = play("-vvv")
    assert first.code == 0, first.output
    assert first.changed == 1
    values = first.secrets["web1"]
    assert set(values) == set(ITEMS)
    assert all(
        f"{ITEMS[name]['item']} / development / {ITEMS[name]['field']}" in flat(first) for name in GENERATED
    )

    server.requests.clear()
    second = play("-vvv")
    assert (second.code, second.changed) == (0, 0), second.output
    assert second.secrets == first.secrets
    assert {method for method, _ in server.requests} == {"GET"}

    check_again = play("--check")
    assert check_again.changed == 0
    assert check_again.secrets == first.secrets

    printable = {"", "admin"}
    for run in (check, first, second, check_again):
        for value in {TOKEN, *values.values()} - printable:
            assert value not in run.output


AWAY = Fault("503 Service Unavailable", headers=[("Retry-After", "1")])
REFUSED = {
    "new": "This host keeps no secrets that the vault gave earlier.",
    "short": "The vault never gave this host docker_registry_password.",
    **dict.fromkeys(
        ["environment", "token", "cut", "edited", "list"], "are damaged, or the vault gave them for"
    ),
}
"""Hosts whose secrets cannot stand for the vault's, and what is said of each."""


def test_goes_on_with_what_the_host_keeps_while_connect_is_away(
    play: Play, server: FaultyServer, put: Any, tmp_path: Path
) -> None:
    """But not with what nobody can check, and never to rotate. No run prints a value."""
    put("Slack webhook", ("development", "url", "https://hooks.example/canary-of-slack"))
    variables = {
        "secrets_kept_file": f"{tmp_path}/kept/{{{{ inventory_hostname }}}}.json",
        "secrets_outage_allowed": True,
        "every_item": DEFAULTS["secrets_items"],
        "secrets_items": "{{ every_item[:-1] if inventory_hostname == 'short' else every_item }}",
    }
    local = ("-vvv", "--connection=local", "--forks=12")
    assert play(*local, "--check", hosts="kept,", **variables).code == 0
    assert not (tmp_path / "kept").exists()
    first = play(*local, hosts="kept,short,", **variables)
    assert first.code == 0, first.output
    file = tmp_path / "kept/kept.json"
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert first.secrets["kept"]["webhook_key"] not in file.read_text()

    os.utime(file, (0, 0))
    second = play(*local, hosts="kept,", **variables)
    assert (second.code, second.changed) == (0, 0), second.output
    assert file.stat().st_mtime > 0, "the vault gave them again"

    text = file.read_text()
    files = {
        **dict.fromkeys(["environment", "token", "renewing"], text),
        "cut": text[:-20],
        "edited": text.replace("canary-of-slack", "canary-of-nobody"),
        "list": "[1]",
    }
    for host, content in files.items():
        file.with_stem(host).write_text(content)
    os.utime(file, (file.stat().st_mtime - 5.06 * 3600,) * 2)
    server.always = AWAY
    live = {"redis_password": "canary-of-redis"}
    variables |= {
        "secrets_items": "{{ every_item }}",
        "secrets_environment": "{{ 'production' if inventory_hostname == 'environment' else 'development' }}",
        "secrets_connect_token": f"{{{{ 'another' if inventory_hostname == 'token' else '{TOKEN}' }}}}",
        "secrets_renew": "{{ ['redis_password'] if inventory_hostname == 'renewing' else [] }}",
        "secrets_live": live,
    }
    away = play(*local, hosts=f"kept,renewing,{','.join(REFUSED)},", **variables)
    assert away.secrets == {"kept": first.secrets["kept"] | live | {"webhook_key": ""}}
    words = flat(away)
    assert "that the vault gave to this host 5 hours ago" in words
    assert "(HTTP 503)" in words
    said = dict(re.findall(r"fatal: \[(\w+)\]: FAILED! =>(.*?)(?=fatal: |TASK |PLAY )", words))
    assert [host for host, expected in REFUSED.items() if expected not in said[host]] == []
    assert "renewing" in said
    assert [host for host in REFUSED if "Nothing of the platform was changed." not in said[host]] == []
    assert file.read_text() == text, "nothing was kept anew"

    check = play(*local, "--check", hosts="kept,", **variables)
    assert (check.code, check.secrets) == (0, away.secrets), check.output
    values = {*first.secrets["kept"].values(), *live.values(), TOKEN} - {"", "admin"}
    outputs = first.output + second.output + away.output + check.output
    assert [value for value in values if value in outputs] == []


def flat(result: Result) -> str:
    """Return the output with the wrapping of long messages undone."""
    return re.sub(r"\s+", " ", result.output)


def test_generated_values_have_the_right_form(play: Play) -> None:
    values = play().secrets["web1"]
    assert values["airflow_admin_username"] == values["flower_username"] == "admin"
    assert len(base64.urlsafe_b64decode(values["fernet_key"])) == 32
    passwords = {name: value for name, value in values.items() if ITEMS[name].get("generate") == "password"}
    assert len(set(passwords.values())) == len(passwords)
    assert all(len(value) >= 32 and value.isalnum() for value in passwords.values())
    assert values["slack_webhook_url"] == ""


def test_keeps_and_fetches_what_people_put_there(play: Play, put: Any) -> None:
    put("Airflow admin", ("development", "username", "ada"), ("production", "password", "of production"))
    put("Slack webhook", ("development", "url", "https://hooks.example/services/T/B/X"))
    values = play().secrets["web1"]
    assert values["airflow_admin_username"] == "ada"
    assert values["airflow_admin_password"] != "of production"
    assert values["slack_webhook_url"] == "https://hooks.example/services/T/B/X"


def test_each_account_of_airflow_has_a_password(play: Play, put: Any) -> None:
    """A generated one, or what a person has put there. All are in one item."""
    put("Airflow accounts", ("development", "ada.l", "a password of her own"))
    result = play("-vvv", secrets_accounts=["jane", "ada.l"])
    assert result.code == 0, result.output
    values = result.secrets["web1"]
    assert set(values) == {*ITEMS, "airflow_account_jane", "airflow_account_ada.l"}
    assert values["airflow_account_ada.l"] == "a password of her own"
    assert re.fullmatch("[A-Za-z0-9]{40}", values["airflow_account_jane"])
    assert "Airflow accounts / development / jane" in flat(result)
    assert values["airflow_account_jane"] not in result.output
    again = play(secrets_accounts=["jane", "ada.l"])
    assert (again.changed, again.secrets) == (0, result.secrets)


def test_worker_hosts_have_secrets_of_their_own(play: Play, stored: Any) -> None:
    """Without worker hosts nobody wants them, and the vault has no item for them."""
    assert set(play().secrets["web1"]) == set(ITEMS)
    assert stored("Airflow worker hosts") == []
    result = play("-vvv", secrets_workers=True)
    assert result.code == 0, result.output
    values = result.secrets["web1"]
    key, password = (values.pop(name) for name in ("worker_authority_key", "worker_database_password"))
    assert set(values) == set(ITEMS)
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert re.fullmatch("[A-Za-z0-9]{40}", password)
    assert key.splitlines()[1] not in result.output
    assert password not in result.output
    again = play(secrets_workers=True)
    assert (again.changed, again.secrets) == (0, play(secrets_workers=True).secrets)
    assert again.secrets["web1"]["worker_authority_key"] == key


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_value_of_several_lines_comes_as_it_is(play: Play, put: Any, end: str) -> None:
    """Such as a deploy key, whose last line end counts."""
    key = f"-----BEGIN OPENSSH PRIVATE KEY-----{end or chr(10)}bWFkZQ=={end or chr(10)}-----END-----{end}"
    put("DAG repository", ("development", "deploy key", key))
    result = play("-vvv")
    assert result.secrets["web1"]["deploy_key"] == key
    assert "bWFkZQ==" not in result.output


def test_environments_have_their_own_values(play: Play) -> None:
    development = play().secrets["web1"]
    production = play(secrets_environment="production").secrets["web1"]
    assert not {development[name] for name in GENERATED} & {production[name] for name in GENERATED} - {
        "admin"
    }


def test_hosts_of_one_environment_share_its_values(play: Play, server: FaultyServer) -> None:
    result = play(hosts="web1,web2,")
    assert result.code == 0, result.output
    assert result.secrets["web1"] == result.secrets["web2"]
    assert server.count("POST") == len({ITEMS[name]["item"] for name in GENERATED})


READER, READ = "token-of-tasks-sentinel", "tasksvault0123456789abcdef"


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """A Connect with two vaults; the token of tasks may read the second one."""
    return create_app(tmp_path / "state", TOKEN, VAULT_ID, tasks=Reader(READER, READ))


@pytest.mark.parametrize(
    ("token", "vault", "words"),
    [
        (READER, READ, ""),
        (TOKEN, "", ""),
        ("", READ, "Empty: OP_TASK_TOKEN."),
        (" ", READ, "Empty: OP_TASK_TOKEN."),
        (READER, "", "check OP_TASK_VAULT_ID (HTTP 404)"),
        ("wrong", READ, "check OP_TASK_TOKEN (HTTP 401)"),
        ("a b", READ, "the token of 1Password Connect is empty or has characters it cannot have"),
    ],
)
def test_token_of_tasks_is_tried_before_anything_is_changed(
    play: Play, server: FaultyServer, token: str, vault: str, words: str
) -> None:
    """Otherwise it is the first task of the night that finds out."""
    result = play("-vvv", secrets_task_token=token, secrets_task_vault_id=vault)
    assert (result.code == 0) == (not words), result.output
    assert words in flat(result)
    assert READER not in result.output
    if words:
        assert words.startswith("Empty") or "Nothing was changed. Tasks could not read" in flat(result)
        assert server.count("POST") == 0
    elif token == READER:
        assert result.secrets["web1"]["fernet_key"]


def test_waits_for_a_connect_that_is_still_syncing(play: Play, server: FaultyServer) -> None:
    server.faults.extend([Fault("403 Forbidden"), Fault("503 Service Unavailable")])
    assert play().code == 0


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("secrets_connect_url", "OP_CONNECT"),
        ("secrets_connect_token", "OP_API_TOKEN"),
        ("secrets_vault_id", "OP_VAULT_ID"),
    ],
)
@pytest.mark.parametrize("value", ["", " "])
def test_names_the_value_that_is_empty_before_asking(
    play: Play, server: FaultyServer, variable: str, name: str, value: str
) -> None:
    result = play(**{variable: value})
    assert result.code != 0
    assert f"Empty: {name}." in flat(result)
    assert server.requests == []


def test_names_the_variable_that_is_not_set(play: Play, server: FaultyServer) -> None:
    result = play(secrets_vault_id=None)
    assert result.code != 0
    assert "missing required arguments: secrets_vault_id" in flat(result)
    assert server.requests == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"secrets_connect_token": f"wrong-{TOKEN}"}, "HTTP 401"),
        (
            {
                "secrets_connect_token": f"wrong-{TOKEN}",
                "secrets_outage_allowed": True,
                "secrets_kept_file": "/absent",
            },
            "HTTP 401",
        ),
        ({"secrets_items": [{"name": "x", "item": "Kept by hand", "field": "key"}]}, "Kept by hand"),
        (
            {
                "secrets_items": [
                    {"name": "x", "item": "Short", "field": "key", "generate": "password", "length": 8}
                ]
            },
            "32",
        ),
    ],
    ids=["token", "token, outage allowed", "absent", "length"],
)
def test_a_failure_says_what_and_never_a_value(play: Play, variables: dict[str, Any], message: str) -> None:
    """`no_log` must not leave the person on call with "output has been hidden" alone."""
    result = play("-vvv", **variables)
    assert result.code != 0
    assert message in flat(result)
    assert TOKEN not in result.output


def test_a_failing_run_prints_no_value_at_all(play: Play, put: Any, stored: Any) -> None:
    """It generates, fetches and then refuses, with all that Ansible can tell."""
    put("Slack webhook", ("development", "url", "https://hooks.example/canary-of-slack"))
    put("DAG repository", ("development", "deploy key", "-----BEGIN-----\ncanary-of-a-line\n-----END-----\n"))
    live = {"fernet_key": "canary-of-fernet", "redis_password": "canary-of-redis"}
    result = play("-vvv", secrets_live=live)
    assert result.code != 0
    assert "The vault has other values than the host runs with: fernet_key, redis_password" in flat(result)
    titles = {ITEMS[name]["item"] for name in GENERATED}
    canaries = {value for title in titles for item in stored(title) for value in item.values()} - {"admin"}
    assert len(canaries) >= len(GENERATED) - 2
    assert [value for value in {*canaries, TOKEN} if value in result.output] == []
    assert "canary-of" not in result.output
