"""The page of metrics is as Prometheus wants it, and documents and dashboard name what is on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.conftest import ROOT, Promtool, expressions, panels

NAME = r"\b(?:airflow_platform|webhook)_[a-z_]+\b"
KNOWN = 'airflow_platform_disk_days_until_full use base unit "seconds" instead of "days"'
"""What promtool says of a name that stays, because dashboards of others may have it."""


@pytest.fixture(scope="module")
def names(page: str) -> set[str]:
    """The metrics on the page, a histogram by the name of all its series."""
    families = list(text_string_to_metric_families(page))
    kinds = {family.name: family.type for family in families}
    return {
        f"{name}_total" if kind == "counter" else name
        for name, kind in kinds.items()
        if not name.endswith("_created")
    }


def test_page_is_as_prometheus_wants_it(promtool: Promtool, page: str) -> None:
    """Names, units, help and types, by its own tool, which ends with 3 when it has something to say."""
    done = promtool("check", "metrics", given=page)
    assert (done.stdout + done.stderr).splitlines() == [KNOWN]
    assert done.returncode == 3


def test_every_metric_is_documented_and_every_documented_one_is_there(names: set[str]) -> None:
    text = (ROOT / "docs/when-something-is-wrong.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`(?:airflow_platform|webhook)_[^|]+) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(NAME, row)} == names


def test_dashboard_shows_every_metric_and_no_other(names: set[str]) -> None:
    shown = {name.removesuffix("_bucket") for text in expressions() for name in re.findall(NAME, text)}
    assert shown == names


def test_dashboard_asks_what_prometheus_understands(promtool: Promtool, tmp_path: Path) -> None:
    asked = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(expressions())]
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": asked}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_asks_for_the_chosen_host() -> None:
    """And for that alone, however many platforms a Prometheus reads."""
    chosen = '{job="$job", instance="$instance"}'
    for text in expressions():
        metrics = re.findall(rf"{NAME}({re.escape(chosen)})?", text)
        assert metrics
        assert all(metrics), text


def test_panels_are_beside_each_other() -> None:
    """Each has an id of its own, and none covers another."""
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels())
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
