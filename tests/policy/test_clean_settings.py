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
from airflow_checker.settings import Settings as CheckerSettings
from airflow_release.clean.logs import PARSING
from airflow_release.core.settings import Settings

from tests.policy.conftest import ROOT, Rendered, load
from tests.policy.test_repository import Run
from tests.releases import NEWEST

DEFAULTS = load(ROOT / "playbooks/group_vars/all/defaults.yml")
WIRING = load(ROOT / "playbooks/group_vars/all/wiring.yml")
SETTINGS = [
    name
    for name in DEFAULTS
    if re.search(r"_keep_(days|count|percent|free_percent)$|^disk_(low|full)_percent$", name)
]


def section(document: str = "deploy.md", heading: str = "What is kept how long") -> str:
    """Return a section of a document, by default the one with the operators' table."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows() -> list[str]:
    """Return the lines of the table."""
    return [line for line in section().splitlines() if line.startswith("| ")]


def test_settings_were_found() -> None:
    some = {"history_keep_days", "log_keep_percent", "backup_keep_count", "disk_keep_free_percent"}
    assert some | {"disk_low_percent", "disk_full_percent"} <= set(SETTINGS)


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


def test_every_limit_of_the_inventory_is_known_here() -> None:
    """Whoever adds one where the others stand finds it missing in the table."""
    text = (ROOT / "playbooks/group_vars/all/defaults.yml").read_text(encoding="utf-8")
    part = text.partition("# == What is kept how long\n")[2].partition("# ==")[0]
    assert set(re.findall(r"^(\w+):", part, re.MULTILINE)) - {"clean_time"} <= set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_in_the_table_with_its_default(name: str) -> None:
    found = [row for row in rows() if f"`{name}`" in row]
    assert found
    for row in found:
        assert re.search(rf"(?<!\d){DEFAULTS[name]}(?!\d)", row), row


def test_table_of_limits_and_table_of_lights_lead_to_each_other() -> None:
    """The lights are those of the checker: tests/checker compares them."""
    lights = section("when-something-is-wrong.md", "Lights")
    assert "| light | severity | what it means | what to do |" in lights
    assert "(deploy.md#what-is-kept-how-long)" in lights
    assert "(when-something-is-wrong.md#lights)" in section()
    for light in set(re.findall(r"`((?:disk|clean)-[a-z]+)`", section())):
        assert f'<a id="light-{light}">' in lights


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_has_a_range_that_holds_its_default(name: str) -> None:
    limit = WIRING["preflight_limits"][name]
    assert limit["value"] == f"{{{{ {name} }}}}"
    assert limit["least"] <= DEFAULTS[name] <= limit["most"]


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_reaches_a_role(name: str) -> None:
    roles = ("airflow_release_", "dag_delivery_", "airflow_checker_", "monitoring_")
    assert f"{{{{ {name} }}}}" in [value for option, value in WIRING.items() if option.startswith(roles)]


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("airflow_checker", ("disk_low_percent", "disk_full_percent")),
        ("airflow_release", ("disk_full_percent",)),
        ("dag_delivery", ("disk_low_percent", "disk_full_percent")),
    ],
)
def test_shares_of_free_disk_are_set_in_one_place(role: str, names: tuple[str, ...]) -> None:
    """The checker reports what keeps backups and commits back: what it calls full, they call full."""
    for name in names:
        assert WIRING[f"{role}_{name}"] == f"{{{{ {name} }}}}"
        assert load(ROOT / f"roles/{role}/defaults/main.yml")[f"{role}_{name}"] == DEFAULTS[name]
    assert DEFAULTS["disk_full_percent"] < DEFAULTS["disk_low_percent"]


def test_rendered_files_have_the_defaults(rendered: dict[str, Rendered]) -> None:
    files = rendered[f"registry {NEWEST}"]
    release = json.loads(files["etc/airflow-release/settings.json"])
    checker = json.loads(files["etc/airflow-checker/settings.json"])
    kept = {name: release[name] for name in ("keep_days", "keep_count", "disk_full_percent")} | release[
        "clean"
    ]
    # Without the files the programs do the same.
    assert {name: int(value) for name, value in kept.items()} == {
        name: getattr(Settings(), name) for name in kept
    }
    for name in ("disk_low_percent", "disk_full_percent"):
        assert int(checker[name]) == getattr(CheckerSettings(), name)
    trees = {
        f"DAG_KEEP_TREES_SECONDS={DEFAULTS['dag_tree_keep_days'] * 86_400}",
        f"DAG_KEEP_TREES_COUNT={DEFAULTS['dag_tree_keep_count']}",
        f"DAG_DISK_LOW_PERCENT={DEFAULTS['disk_low_percent']}",
        f"DAG_DISK_FULL_PERCENT={DEFAULTS['disk_full_percent']}",
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
