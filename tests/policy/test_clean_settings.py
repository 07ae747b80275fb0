"""What is kept how long: each setting reaches its program, has a range, and is in the operators' table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_checker import judge
from airflow_checker.facts import Facts, Unit
from airflow_release.clean.logs import PARSING
from airflow_release.core.settings import CLEAN, Settings

from tests.policy.conftest import ROOT, Rendered, load
from tests.policy.test_repository import Run
from tests.releases import NEWEST

DEFAULTS = load(ROOT / "playbooks/group_vars/all/defaults.yml")
WIRING = load(ROOT / "playbooks/group_vars/all/wiring.yml")
SETTINGS = [name for name in DEFAULTS if re.search(r"_keep_(days|count|percent|free_percent)$", name)]


def section() -> str:
    """Return the operators' section with the table."""
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    return text.partition("## What is kept how long")[2].partition("\n## ")[0]


def test_settings_were_found() -> None:
    assert {"history_keep_days", "log_keep_percent", "backup_keep_count", "disk_keep_free_percent"} <= set(
        SETTINGS
    )


def test_history_and_logs_stay_for_90_days_by_default() -> None:
    assert [DEFAULTS[name] for name in ("history_keep_days", "log_keep_days", "scheduler_log_keep_days")] == [
        90
    ] * 3


def test_light_of_a_clean_up_that_failed_is_named() -> None:
    """The checker leaves the unit's failure out where the clean-up has said why."""
    facts = Facts(
        now=0,
        units=[Unit("airflow-clean.service", active="failed", result="exit-code")],
        clean={"at": 0, "failed": "logs: too many"},
    )
    [light] = {finding.light for finding in judge.units(facts)} | {one.light for one in judge.clean(facts)}
    assert f"(`{light}`)" in section()


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_in_the_table_with_its_default(name: str) -> None:
    rows = [line for line in section().splitlines() if line.startswith("|") and f"`{name}`" in line]
    assert rows
    for row in rows:
        assert str(DEFAULTS[name]) in re.findall(r"\d+", row), row


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_has_a_range_that_holds_its_default(name: str) -> None:
    limit = WIRING["preflight_limits"][name]
    assert limit["value"] == f"{{{{ {name} }}}}"
    assert limit["least"] <= DEFAULTS[name] <= limit["most"]


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_reaches_a_role(name: str) -> None:
    values = [
        value for option, value in WIRING.items() if option.startswith(("airflow_release_", "dag_delivery_"))
    ]
    assert f"{{{{ {name} }}}}" in values


def test_rendered_files_have_the_defaults(rendered: dict[str, Rendered]) -> None:
    files = rendered[f"registry {NEWEST}"]
    settings = json.loads(files["etc/airflow-release/settings.json"])
    kept = {name: settings[name] for name in ("keep_days", "keep_count")} | settings["clean"]
    # Without the file the program does the same.
    assert {name: int(value) for name, value in kept.items()} == {
        name: getattr(Settings(), name) for name in (*CLEAN, "keep_days", "keep_count")
    }
    trees = {
        f"DAG_KEEP_TREES_SECONDS={DEFAULTS['dag_tree_keep_days'] * 86_400}",
        f"DAG_KEEP_TREES_COUNT={DEFAULTS['dag_tree_keep_count']}",
    }
    assert trees <= set(files["srv/airflow/env/webhook.env"].splitlines())
    ages = [
        line.split() for line in files["etc/airflow-release/tmpfiles.conf"].splitlines() if line[:1] == "e"
    ]
    assert {path: age for _, path, *_, age in ages} == {
        "/srv/airflow/logs": "mM:90d",
        **{f"/srv/airflow/logs/{name}": "mM:90d" for name in PARSING},
    }


def preflight(folder: Path, limits: dict[str, Any]) -> Run:
    variables = {
        "preflight_airflow_version": NEWEST,
        "preflight_environment": "production",
        "preflight_uid": 50000,
        "preflight_limits": {
            name: {"value": value, "least": 7, "most": 90} for name, value in limits.items()
        },
    }
    return Run(folder, "preflight", "inputs", yaml.safe_load(yaml.safe_dump(variables, sort_keys=False)))


@pytest.mark.parametrize("value", [0, 6, 91, -1, "a week", "", 7.5])
def test_preflight_refuses_what_is_out_of_range(tmp_path: Path, value: object) -> None:
    """A zero would remove all history in the first night."""
    run = preflight(tmp_path, {"log_keep_days": 90, "history_keep_days": value})
    assert not run.ok
    assert f"history_keep_days is {value}; a whole number from 7 to 90 is expected." in run.output
    assert "log_keep_days is" not in run.output


def test_preflight_takes_numbers_as_text_too(tmp_path: Path) -> None:
    run = preflight(tmp_path, {"log_keep_days": 90, "history_keep_days": "7"})
    assert run.ok, run.output
