"""Every fault of the checker's tests fires the rule of its light and no other, by Prometheus' own tool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_checker import cli, judge, report, rules
from airflow_checker.facts import Facts
from airflow_checker.judge import HOUR, Trends
from airflow_checker.lights import LIGHTS, NOTICE, Finding
from airflow_checker.memory import Memory
from airflow_checker.settings import Settings
from prometheus_client.parser import text_string_to_metric_families

from tests.checker.conftest import NOW, well
from tests.checker.test_checker_judge import FAULTS, Growth
from tests.monitoring.conftest import ROOT, Promtool, exposition

FILE = ROOT / "monitoring/rules.yml"
OF_THE_MAIN_HOST = {
    name for name, light in LIGHTS.items() if light.severity != NOTICE and light.where != "worker"
}
"""The lights that /metrics may show, and that somebody is told of."""
BLIND = {"metrics-absent", "checker-silent"}
"""The rules for when no light can be seen."""
STEP = 300
"""Seconds between two evaluations. The longest patience is a day, in which promtool takes each of them."""
TARGET = {"job": rules.JOB, "instance": "atd-data03:8081"}
UP = f'up{{job="{rules.JOB}", instance="{TARGET["instance"]}"}}'

PLATFORMS: dict[str, tuple[Facts, Trends]] = {
    **{name: (well(**changes), Trends()) for name, (changes, _) in FAULTS.items()},
    "a service restarts": (well(), Growth(starts=3)),
    "the database grows": (well(), Growth(growth=(2**31, 0.2))),
    "the disk fills": (well(), Growth(days=0.9)),
    "an operation stands": (
        well(operation={"state": "prepared", "kind": "upgrade", "phases": [{"started": NOW - 7 * HOUR}]}),
        Trends(),
    ),
}
"""What is observed, and what earlier observations say."""


def alert(light: str) -> str:
    """Return the name of the light's alert."""
    return "Airflow" + light.title().replace("-", "")


@cache
def written() -> list[dict[str, Any]]:
    """Return the rules of the file."""
    [group] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def findings_of(name: str) -> list[Finding]:
    """Return what the checker finds on a platform."""
    return judge.judge(*PLATFORMS[name])


def series(name: str, folder: Path) -> list[str]:
    """Return what Prometheus reads of a platform: findings and verdict, on which all rules are."""
    facts, _ = PLATFORMS[name]
    findings = findings_of(name)
    memory = Memory()
    memory.observe(facts)
    memory.see(findings, blind=False)
    text = exposition(report.build(facts, findings, memory, Settings()), folder)
    read = chain.from_iterable(family.samples for family in text_string_to_metric_families(text))
    return [
        f"{sample.name}{{{labels({**sample.labels, **TARGET})}}} {sample.value:.0f}"
        for sample in read
        if sample.name in ("airflow_platform_finding", "airflow_platform_health")
    ]


def labels(given: dict[str, str]) -> str:
    """Return labels as PromQL has them; its strings are escaped as JSON's are."""
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in given.items())


def case(name: str, samples: list[str], fires: dict[str, list[dict[str, Any]]], after: int) -> dict[str, Any]:
    """Return a test of promtool's: what is read at every step, and what fires after so many seconds."""
    steps = after // STEP + 1
    pairs = [sample.rsplit(" ", 1) for sample in samples]
    # Nothing does at once.
    at_once = [{"eval_time": "0s", "alertname": each, "exp_alerts": []} for each in fires]
    later = [
        {"eval_time": f"{after}s", "alertname": rule["alert"], "exp_alerts": fires.get(rule["alert"], [])}
        for rule in written()
    ]
    return {
        "name": name,
        "interval": f"{STEP}s",
        "input_series": [{"series": each, "values": f"{value}+0x{steps}"} for each, value in pairs],
        "alert_rule_test": [*at_once, *later],
    }


def expected(finding: Finding) -> dict[str, Any]:
    """Return the alert of a finding: with its words, in which commands name what it is about."""
    subject = {"subject": finding.subject} if finding.subject else {}
    about = f"{finding.subject}: " if finding.subject else ""
    return {
        "exp_labels": {**TARGET, **subject, "light": finding.light, "severity": finding.severity},
        "exp_annotations": {
            "summary": about + LIGHTS[finding.light].meaning,
            "description": finding.advice,
            "runbook": f"docs/when-something-is-wrong.md#{finding.anchor}",
        },
    }


def blind(light: str, target: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the alert of a rule for when no light can be seen, with the words of the file."""
    [rule] = [rule for rule in written() if rule["alert"] == alert(light)]
    return {
        rule["alert"]: [
            {"exp_labels": {**target, "severity": "critical"}, "exp_annotations": rule["annotations"]}
        ]
    }


def of_platforms(names: Iterable[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a test for each of these platforms."""
    for name in names:
        told = [finding for finding in findings_of(name) if finding.severity != NOTICE]
        fires: dict[str, list[dict[str, Any]]] = {}
        for finding in told:
            fires.setdefault(alert(finding.light), []).append(expected(finding))
        patience = max((LIGHTS[finding.light].patience for finding in told), default=0)
        after = int(patience // STEP + 1) * STEP
        yield case(name, [f"{UP} 1", *series(name, folder)], fires, after)


def of_the_blind() -> list[dict[str, Any]]:
    """Return a test for each way in which no light can be seen."""
    silent = [f"{UP} 1", f"airflow_platform_health{{{labels(TARGET)}}} 3"]
    return [
        case("the checker is silent", silent, blind("checker-silent", TARGET), STEP),
        case("the host is gone", [f"{UP} 0"], blind("metrics-absent", TARGET), STEP),
        case("nobody reads the metrics", [], blind("metrics-absent", {"job": rules.JOB}), STEP),
    ]


def try_rules(promtool: Promtool, folder: Path, rules_file: Path, tests: list[dict[str, Any]]) -> str:
    """Return what promtool says of the tests, "" when all pass."""
    document = {"rule_files": [str(rules_file)], "evaluation_interval": f"{STEP}s", "tests": tests}
    (folder / "tests.json").write_text(json.dumps(document))
    done = promtool("test", "rules", str(folder / "tests.json"))
    assert (done.returncode == 0) == ("SUCCESS" in done.stdout), done.stdout + done.stderr
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_file_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Edit lights.py, then write what the command prints to the file."""
    assert cli.main(["rules"]) == 0
    assert FILE.read_text(encoding="utf-8") == capsys.readouterr().out


def test_light_has_a_rule_and_rule_has_a_light() -> None:
    told = OF_THE_MAIN_HOST
    assert sorted(rule["alert"] for rule in written()) == sorted(map(alert, told | BLIND))
    assert sorted(
        light for rule in written() for light in re.findall(r'{light="([^"]+)"}', rule["expr"])
    ) == sorted(told)


def test_every_rule_is_tried() -> None:
    """What no fault fires may never fire."""
    tried = {finding.light for name in PLATFORMS for finding in findings_of(name)}
    assert tried >= OF_THE_MAIN_HOST


def test_rules_are_valid(promtool: Promtool) -> None:
    done = promtool("check", "rules", "--lint-fatal", str(FILE))
    assert done.returncode == 0, done.stdout + done.stderr


def test_fault_fires_its_rule_and_no_other(promtool: Promtool, tmp_path: Path) -> None:
    """All in one call: a Prometheus that starts costs more than a hundred faults."""
    tests = [*of_platforms(PLATFORMS, tmp_path), *of_the_blind()]
    assert try_rules(promtool, tmp_path, FILE, tests) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('{light="service-down"}', '{light="service-lost"}'),
        ('{light="service-down"}', ""),
        ("docker compose logs {{ $labels.subject }}", "docker compose logs"),
    ],
    ids=["another light", "any light", "no subject"],
)
def test_wrong_rule_is_found(promtool: Promtool, tmp_path: Path, right: str, wrong: str) -> None:
    """Else the test above could not fail."""
    text = FILE.read_text(encoding="utf-8")
    assert right in text
    (tmp_path / "rules.yml").write_text(text.replace(right, wrong))
    ill = list(of_platforms(["a container exited", "Redis is silent"], tmp_path))
    assert "FAILED" in try_rules(promtool, tmp_path, tmp_path / "rules.yml", ill)
