"""The report's page: rendered by Ansible, safe whatever text is in it, and read in a real browser."""

from __future__ import annotations

import copy
import html
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium
from tests.policy.conftest import ansible
from tests.release.report.conftest import ROOT, Json

TEMPLATE = ROOT / "templates/srv/airflow/releases/report.html.j2"
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 191 }}</style>&amp;"
DATA = "2.6.1-to-2.11.2.json"

REPORT: Json = {
    "format": 2,
    "created": "2026-03-20T09:30:00+00:00",
    "from": {
        "airflow_version": "2.6.1",
        "python_version": "3.11.2",
        "image": "airflow-platform/airflow:2.6.1-0a1",
    },
    "to": {
        "airflow_version": "2.11.2",
        "python_version": "3.11.2",
        "image": "airflow-platform/airflow:2.11.2-9f8",
    },
    "dags": [
        {
            "path": "dags/nightly_docker.py",
            "dag_ids": ["nightly-docker"],
            "state": "breaks",
            "problems": [
                {
                    "kind": "import",
                    "summary": "ValueError: Invalid `auto_remove` value True",
                    "message": 'Traceback (most recent call last):\n  File "dags/nightly_docker.py", line 7\n'
                    "ValueError: Invalid `auto_remove` value True",
                    "hint": "DockerOperator's auto_remove is a word now: auto_remove='success' for True.",
                }
            ],
            "warnings": [],
            "seconds": 0.2,
        },
        *(
            {
                "path": f"dags/extract_{number:02}.py",
                "dag_ids": [f"extract-{number:02}"],
                "state": "warns" if number % 3 == 0 else "clean",
                "problems": [],
                "warnings": ["RemovedInAirflow3Warning: Param `schedule_interval` is deprecated."]
                if number % 3 == 0
                else [],
                "seconds": 0.1,
            }
            for number in range(24)
        ),
    ],
    "settings": [
        {
            "variable": "AIRFLOW__CELERY__STALLED_TASK_TIMEOUT",
            "services": ["airflow-scheduler", "airflow-worker"],
            "change": "renamed",
            "name": "celery.stalled_task_timeout",
            "replacement": "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT",
            "since": "2.6.0",
            "reason": "",
        }
    ],
    "packages": [
        {
            "name": "apache-airflow-providers-docker",
            "from": "3.6.0",
            "to": "4.4.3",
            "change": "upgraded",
            "provider": True,
        },
        {"name": "apache-airflow", "from": "2.6.1", "to": "2.11.2", "change": "upgraded", "provider": False},
        {"name": "pendulum", "from": "2.1.2", "to": "3.1.0", "change": "upgraded", "provider": False},
        {"name": "gunicorn", "from": "21.0.0", "to": "20.1.0", "change": "downgraded", "provider": False},
        {"name": "cattrs", "from": "22.2.0", "to": None, "change": "removed", "provider": False},
    ],
    "compose": {
        "addresses": ["https://airflow.example.org/2.6.1", "https://airflow.example.org/2.11.2"],
        "note": "",
        "diff": "--- 2.6.1/docker-compose.yaml\n+++ 2.11.2/docker-compose.yaml\n@@ -1,3 +1,3 @@\n"
        " x-airflow-common:\n-  image: apache/airflow:2.6.1\n+  image: apache/airflow:2.11.2\n",
    },
    "fix": {
        "files": [{"path": "dags/nightly_docker.py", "rules": ["auto_remove"]}],
        "mends": ["dags/nightly_docker.py"],
        "quiets": [],
        "note": "",
    },
    "seconds": {"images": 5.1, "dags": 12.5, "settings": 0.2, "compose": 0.4},
    "verdict": {
        "blocking": [
            {
                "cause": "import: ValueError: Invalid `auto_remove` value …",
                "summary": "ValueError: Invalid `auto_remove` value True",
                "hint": "DockerOperator's auto_remove is a word now: auto_remove='success' for True.",
                "count": 1,
                "files": [
                    {
                        "path": "dags/nightly_docker.py",
                        "dag_ids": ["nightly-docker"],
                        "acknowledge": "nightly-docker",
                    }
                ],
            }
        ],
        "notes": [{"kind": "dag", "text": "8 files of DAGs import with warnings."}],
    },
}
PHASES = [
    {"name": "build", "state": "done", "seconds": 61.9, "note": "the image was on disk"},
    {"name": "report", "state": "done", "seconds": 18.4, "note": ""},
    {"name": "rehearse", "state": "done", "seconds": 14.0, "note": "the database has 12 MiB"},
    {"name": "migrate", "state": "failed", "seconds": 4.1, "note": ""},
]
OPERATION: Json = {
    "id": "20260320T093000Z",
    "from_version": "2.6.1",
    "to_version": "2.11.2",
    "phases": PHASES,
    "outcome": "returned",
    "failed_phase": "migrate",
    "log": "alembic.runtime.migration: Running upgrade\nsqlalchemy.exc.OperationalError: disk full",
}


def passing() -> Json:
    """Return the report of an upgrade that nothing is in the way of."""
    report = copy.deepcopy(REPORT)
    report["dags"] = [file for file in report["dags"] if file["state"] in ("warns", "clean")]
    report["verdict"]["blocking"] = []
    report["fix"] = {"files": [], "mends": [], "quiets": [], "note": ""}
    return report


def many() -> Json:
    """Return a report of 75 files that one cause breaks; fix.patch mends all but one."""
    report = copy.deepcopy(REPORT)
    [cause] = report["verdict"]["blocking"]
    cause["count"] = 75
    cause["files"] = [
        {"path": f"dags/load_{number}.py", "dag_ids": [f"load-{number}"], "acknowledge": f"load-{number}"}
        for number in range(75)
    ]
    report["fix"]["mends"] = [file["path"] for file in cause["files"][1:]]
    return report


DONE = {**OPERATION, "outcome": "succeeded", "failed_phase": "", "log": "", "phases": PHASES[:4]}
PAGES: dict[str, Json] = {
    "blocked": {"__upgrade_report": REPORT},
    "many": {"__upgrade_report": many()},
    "passing": {"__upgrade_report": passing(), "__upgrade_notes": ["Airflow 2.11.2 has had no fixes."]},
    "done": {"__upgrade_report": passing(), "upgrade_operation": DONE},
    "returned": {"__upgrade_report": passing(), "upgrade_operation": OPERATION},
    "unreported": {"upgrade_operation": {**OPERATION, "outcome": "failed", "failed_phase": "build"}},
    "attacked": {},
}
DEFAULTS: Json = {
    "inventory_hostname": "atd-data03",
    "upgrade_running_version": "2.6.1",
    "upgrade_target_version": "2.11.2",
    "__upgrade_acknowledged": [],
    "upgrade_operation": {},
    "__upgrade_report": {},
    "__upgrade_notes": [],
}


def poisoned(value: Any, text: str) -> Any:
    """Return a document with `text` in every text but those that choose how something is shown."""
    if isinstance(value, dict):
        kept = ("change", "outcome")
        return {key: each if key in kept else poisoned(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, text) for each in value]
    return f"{value} {text}" if isinstance(value, str) else value


PAGES["attacked"] = {
    "__upgrade_report": poisoned(REPORT, ATTACK),
    "upgrade_operation": poisoned(OPERATION, ATTACK),
    "__upgrade_notes": [ATTACK],
}


class Elements(HTMLParser):
    """The tags and attributes of a page, in their order: what no text may change."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def render(**variables: Any) -> str:
    """Render the page in this process, by Ansible's own template engine."""
    templar = Templar(loader=DataLoader(), variables={"ansible_managed": "Ansible managed", **variables})
    return str(templar.template(trust_as_template(TEMPLATE.read_text(encoding="utf-8"))))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")))
@example(ATTACK)
@example("{% raw %}{# --><!-- ]]>")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_becomes_markup(text: str) -> None:
    """The same elements with the same attributes, whatever DAGs, logs and packages say."""
    assert Elements(poisoned_page(text)).found == Elements(poisoned_page("text")).found


@cache
def poisoned_page(text: str) -> str:
    """Return the page with `text` wherever somebody else's text may be."""
    return render(
        **{
            **DEFAULTS,
            "__upgrade_report": poisoned(REPORT, text),
            "upgrade_operation": poisoned(OPERATION, text),
            "__upgrade_notes": [text],
        }
    )


def test_page_is_of_one_piece() -> None:
    """Nothing is fetched and nothing runs."""
    page = render(**{**DEFAULTS, **PAGES["returned"]})
    tags = {tag for tag, _ in Elements(page).found}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "form", "a"})
    assert not re.search(r"url\(|@import|\bon\w+=", page.partition("<body>")[0])
    assert page.startswith("<!doctype html>")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, written by Ansible's template module as the role does."""
    folder = tmp_path_factory.mktemp("pages")
    hosts = {
        name: {**DEFAULTS, **page, "pages": str(folder), "template": str(TEMPLATE)}
        for name, page in PAGES.items()
    }
    for variables in hosts.values():
        del variables["inventory_hostname"]
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {name: {} for name in hosts}}}))
    for name, variables in hosts.items():
        (folder / "host_vars").mkdir(exist_ok=True)
        # As text from a host arrives: marked as what is no template.
        (folder / f"host_vars/{name}.json").write_text(json.dumps(_unsafe(variables)))
    run = ansible(
        "ansible-playbook",
        f"--inventory={folder}/inventory.json",
        "tests/release/report/report_page.yml",
        environment={"ANSIBLE_PYTHON_INTERPRETER": sys.executable},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def _unsafe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unsafe(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unsafe(each) for each in value]
    return {"__ansible_unsafe": value} if isinstance(value, str) else value


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A phone's browser that notes what goes wrong and what is asked for."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    wrong: list[str] = []
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    yield page
    assert wrong == []
    assert [url for url in requests if not url.startswith("file://")] == []
    context.close()


VERDICTS = {
    "blocked": "1 DAG file in the way of the upgrade",
    "many": "75 DAG files in the way of the upgrade",
    "passing": "Nothing is in the way; 1 note",
    "done": "Done: Airflow 2.11.2 runs",
    "returned": "Not done: Airflow 2.6.1 runs again, with its data",
    "unreported": "Failed in the phase build",
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict_is_seen_first(page: Page, pages: Path, name: str) -> None:
    """Without scrolling, on a phone; with all details open, nothing is wider than the screen."""
    page.goto(f"file://{pages}/{name}.html")
    verdict = page.get_by_role("status")
    expect(verdict).to_contain_text(VERDICTS[name])
    expect(verdict).to_be_in_viewport(ratio=1)
    for details in page.locator("details.card > summary").all():
        details.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_in_the_way_comes_with_its_remedy(page: Page, pages: Path) -> None:
    page.goto(f"file://{pages}/blocked.html")
    blocking = page.locator("#blocking")
    expect(blocking.locator("h3")).to_have_text("1 file: ValueError: Invalid `auto_remove` value True")
    expect(blocking).to_contain_text("auto_remove='success'")
    expect(blocking.locator("li")).to_have_text("dags/nightly_docker.py nightly-docker fix.patch")
    expect(blocking.locator("#fix")).to_contain_text("fix.patch beside this page repairs 1 of 1 file.")
    expect(blocking.locator("pre").last).to_have_text(
        re.compile(r"-e airflow_version=2\.11\.2 -e '\{\"upgrade_acknowledge\": \[\"nightly-docker\"\]\}'")
    )


def test_one_cause_is_told_once(page: Page, pages: Path) -> None:
    """One paragraph for 75 files, whose list opens on demand; each name can be acknowledged."""
    page.goto(f"file://{pages}/many.html")
    blocking = page.locator("#blocking")
    expect(blocking.locator(".hint")).to_have_count(1)
    expect(blocking.locator("li")).to_have_count(75)
    expect(blocking.locator("li").first).not_to_be_visible()
    blocking.locator("summary").click()
    expect(blocking.locator("li").last).to_have_text("dags/load_74.py load-74 fix.patch")
    expect(blocking.locator("li").first).to_have_text("dags/load_0.py load-0")
    expect(blocking.locator("#fix")).to_contain_text("fix.patch beside this page repairs 74 of 75 files.")
    expect(blocking.locator("pre").last).to_contain_text('"load-0", "load-1"')


def test_details_open_on_demand(page: Page, pages: Path) -> None:
    """The long lists are closed at first; the diff shows what came and went."""
    page.goto(f"file://{pages}/blocked.html")
    providers = page.get_by_text("apache-airflow-providers-docker")
    expect(providers).not_to_be_visible()
    page.locator("#packages > summary").click()
    expect(providers).to_be_visible()
    expect(page.locator("#packages td").first).to_have_text("apache-airflow-providers-docker")
    expect(page.locator("#packages > summary")).to_contain_text(
        "3 upgraded, 1 downgraded, 0 added, 1 removed"
    )
    page.locator("#compose > summary").click()
    expect(page.locator("#compose .plus").last).to_have_text("+  image: apache/airflow:2.11.2")
    expect(page.locator("#compose > summary")).to_contain_text("1 line added")
    page.locator("#dags > summary").click()
    page.locator("#dags summary", has_text="traceback").click()
    expect(page.locator("#dags pre")).to_contain_text('File "dags/nightly_docker.py", line 7')


def test_failure_shows_its_log_and_the_times(page: Page, pages: Path) -> None:
    page.goto(f"file://{pages}/returned.html")
    expect(page.locator("#log pre")).to_contain_text("disk full")
    expect(page.locator("#phases tr", has_text="migrate")).to_contain_text("failed")
    expect(page.locator("#phases tr", has_text="build")).to_contain_text("61.9 s")


def test_attack_is_only_text(page: Page, pages: Path) -> None:
    """No dialog, no request, no script; the reader sees what somebody tried."""
    page.goto(f"file://{pages}/attacked.html")
    expect(page.locator("#log pre")).to_contain_text(ATTACK)
    assert page.locator("script, img").count() == 0
    assert html.escape("{{ 7 * 191 }}") in (pages / "attacked.html").read_text()
    assert "1337" not in page.content()
