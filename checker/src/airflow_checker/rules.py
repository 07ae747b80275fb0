"""Alerting rules for Prometheus: one for each light of a main host that is no notice, from `lights.LIGHTS`.

monitoring/rules.yml has what `text` returns, and a test compares the two.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_checker.lights import CRITICAL, LIGHTS, NOTICE

DOCUMENT = "docs/when-something-is-wrong.md"
JOB = "airflow"
"""What the documents call the job that reads /metrics."""
SUBJECT = "{{ $labels.subject }}"
WIDTH = 120
HEAD = """\
# Alerting rules for Prometheus: one for each light that is no notice, and two for when no light can be seen.
# Made by `airflow-checker rules` from checker/src/airflow_checker/lights.py; edit that.
---
groups:
  - name: airflow-platform
    rules:
"""


@dataclass(frozen=True)
class Rule:
    """One alerting rule."""

    light: str
    expression: str
    patience: float
    """Seconds for which it has to be true before the alert fires."""
    summary: str
    """May be a template of Prometheus, as the next one."""
    description: str
    anchor: str
    severity: str = ""
    """"" where the metric's own label says it."""

    @property
    def alert(self) -> str:
        """Return the alert's name: that of the light, as Prometheus' alerts are named."""
        return "Airflow" + "".join(word.capitalize() for word in self.light.split("-"))


def rules() -> Iterator[Rule]:
    """Yield all rules; a notice can wait for the next maintenance and has none.

    The metrics are those of the main host, so what only a worker host sees has none either.
    """
    yield Rule(
        "metrics-absent",
        f'up{{job="{JOB}"}} == 0 or absent(up{{job="{JOB}"}})',
        300,
        "Prometheus cannot read the platform's metrics, so no other alert can fire.",
        "Open the platform's status page, and run `airflow-checker status` on the host. If the page is"
        " there, compare the token that Prometheus sends with the vault's.",
        "watch-it-with-prometheus",
        CRITICAL,
    )
    yield Rule(
        "checker-silent",
        "airflow_platform_health == 3",
        60,
        "The checker of the host is silent: nobody knows what works.",
        "Run `systemctl status airflow-checker.timer airflow-checker` on the host.",
        "light-checker-silent",
        CRITICAL,
    )
    for name, light in LIGHTS.items():
        if light.severity != NOTICE and light.where != "worker":
            yield Rule(
                name,
                f'airflow_platform_finding{{light="{name}"}} == 1',
                light.patience,
                f"{{{{ with $labels.subject }}}}{{{{ . }}}}: {{{{ end }}}}{light.meaning}",
                re.sub("<(?:service|unit|timer)>", SUBJECT, light.advice),
                f"light-{name}",
            )


def text() -> str:
    """Return monitoring/rules.yml."""
    return HEAD + "".join(map(entry, rules()))


def entry(rule: Rule) -> str:
    """Return one rule as the file has it."""
    lines = [f"- alert: {rule.alert}", *folded("expr", rule.expression), f"  for: {rule.patience:.0f}s"]
    if rule.severity:
        lines.append(f"  labels: {{severity: {rule.severity}}}")
    lines.append("  annotations:")
    for name, words in (("summary", rule.summary), ("description", rule.description)):
        lines += [f"  {line}" for line in folded(name, words)]
    lines.append(f"    runbook: {DOCUMENT}#{rule.anchor}")
    return textwrap.indent("\n".join(lines), " " * 6) + "\n"


def folded(name: str, words: str) -> Iterator[str]:
    """Yield a value as YAML's folded text, in which nothing has to be quoted."""
    yield f"  {name}: >-"
    yield from textwrap.wrap(
        words,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
