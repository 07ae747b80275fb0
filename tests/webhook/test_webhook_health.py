"""What the host's checker found, on the page and in the metrics: never green when it is not, or is silent."""

import copy
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from airflow_checker import lights, report
from airflow_checker.facts import WorkerHost
from airflow_checker.lights import LIGHTS, Finding
from airflow_checker.memory import Episode, Memory
from airflow_checker.settings import Settings as CheckerSettings
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from webhook.airflow_status import AirflowStatus
from webhook.app import create_app
from webhook.lights import ON_THE_PAGE, Light
from webhook.settings import RepositorySettings, Settings

from tests.checker.conftest import well
from tests.webhook.doubles import VaultDouble
from tests.webhook.health_document import bad_day, document, figures, finding, service, worker_host
from webhook import health, status

ROOT = Path(__file__).resolve().parents[2]
BROWSER = {"Accept": "text/html"}
Page = Callable[..., tuple[dict[str, Any], str, dict[str, float]]]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's file."""
    return tmp_path_factory.mktemp("host") / "health.json"


@pytest.fixture(scope="module")
def client(file: Path) -> FlaskClient:
    """The page of a platform of which Airflow says that it is well."""
    directory = file.parent
    app = create_app(
        {
            "TESTING": True,
            "SETTINGS": Settings(
                environment="staging", trees_dir=directory, state_dir=directory / "state", health_file=file
            ),
            "VAULT": VaultDouble(),
        }
    )
    airflow = AirflowStatus(version="2.11.2", components={"scheduler": "healthy"})
    app.extensions["webhook"].airflow.status = lambda: airflow
    return app.test_client()


@pytest.fixture
def page(client: FlaskClient, file: Path) -> Page:
    """Write the host's file; return the page as JSON and HTML, and the metrics' samples."""
    file.unlink(missing_ok=True)

    def fetch(written: Any) -> tuple[Json, str, dict[str, float]]:
        if written is not None:
            file.write_text(written if isinstance(written, str) else json.dumps(written))
        found = client.get("/", headers={"Accept": "application/json"}).get_json()
        text = client.get("/", headers=BROWSER).get_data(as_text=True)
        return found, text, samples(client.get("/metrics").get_data(as_text=True))

    return fetch


def samples(text: str) -> dict[str, float]:
    """Return what Prometheus reads, as `name{label}`; two of one name would be an error there."""
    read = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    named = [(f"{sample.name}{{{','.join(sample.labels.values())}}}", sample.value) for sample in read]
    assert len(dict(named)) == len(named)
    return dict(named)


def verdict(text: str) -> str:
    """Return the page's first heading."""
    [heading] = re.findall(r"<h1>(.*?)</h1>", text)
    return str(heading)


def test_all_is_well_when_both_say_so(page: Page) -> None:
    found, text, metrics = page(document())
    assert (found["attention"], found["level"]) == ([], "ok")
    assert verdict(text) == "All is well"
    assert "What to do" not in text
    assert "staging · atd-data03 · Airflow 2.11.2 is running" in text
    assert metrics["airflow_platform_health{}"] == 0


@pytest.mark.parametrize(
    ("light", "level", "words", "number"),
    [
        ("service-down", "critical", "Needs a look now", 2),
        ("service-restarts", "warning", "Needs a look", 1),
    ],
)
def test_finding_needs_a_look(page: Page, light: str, level: str, words: str, number: int) -> None:
    grave = finding(light, "weather", "The container of weather is <exited>.")
    found, text, metrics = page(
        document(overall=level, findings=[grave], services=[service("weather", state="exited", health="")])
    )
    assert found["attention"] == [f"The container of weather is <exited>. {grave['advice']}"]
    assert (found["level"], verdict(text)) == (level, words)
    assert "is &lt;exited&gt;." in text
    assert "<code>docker compose logs weather</code>" in text
    assert f"docs/when-something-is-wrong.md#light-{light}" in text
    assert '<span class="tag bad">exited</span>' in text
    assert metrics["airflow_platform_health{}"] == number
    assert metrics["airflow_platform_service_up{weather}"] == 0
    assert metrics[f"airflow_platform_findings{{{level}}}"] == 1


@pytest.mark.parametrize("light", ["reboot-pending", "token-shared"])
def test_notice_can_wait(page: Page, light: str) -> None:
    notice = finding(light, "", "It can wait.")
    found, text, metrics = page(document(findings=[notice]))
    assert (found["attention"], verdict(text)) == ([], "All is well")
    assert "Can wait" in text
    assert LIGHTS[light].advice.partition("`")[0] in text
    assert metrics["airflow_platform_findings{notice}"] == 1
    assert metrics[f"airflow_platform_finding{{{light},notice,}}"] == 1


def test_verdict_without_a_finding_is_not_green(page: Page) -> None:
    found, text, _ = page(document(overall="critical"))
    assert found["attention"] == ["the checker's verdict is critical"]
    assert verdict(text) == "Needs a look now"


@pytest.mark.parametrize(
    ("state", "words"), [("switching", "An operation is active"), ("stopped", "Stopped on purpose")]
)
def test_platform_that_runs_no_task_on_purpose_is_not_green(page: Page, state: str, words: str) -> None:
    """Nor does it need a look, unless something else does."""
    found, text, _ = page(document(state=state, doing="upgrade 2.6.1 -> 2.11.2, switching"))
    assert (found["attention"], found["level"], verdict(text)) == ([], state, words)
    assert "upgrade 2.6.1 -&gt; 2.11.2, switching" in text
    full = finding("disk-full", "/", "The disk of / is full.")
    assert page(document(state=state, overall="critical", findings=[full]))[0]["level"] == "critical"


@pytest.mark.parametrize("age", [0, 200])
@pytest.mark.parametrize("state", ["running", "switching", "stopped"])
@pytest.mark.parametrize(
    ("overall", "light"), [("ok", ""), ("warning", "disk-low"), ("critical", "disk-full")]
)
def test_page_metrics_and_command_say_the_same(
    page: Page, overall: str, light: str, state: str, age: float
) -> None:
    findings = [finding(light, "/", "A fault.")] if light else []
    written = document(age, overall=overall, state=state, findings=findings)
    found, text, metrics = page(written)
    looks = report.needs_a_look(written, time.time())
    ill = bool(age) or overall != "ok"
    assert looks == (ill or state == "stopped")
    assert (found["attention"] != []) == ill
    assert verdict(text).startswith("Needs a look") == ill
    assert (metrics["airflow_platform_health{}"] > 0) == ill
    assert metrics.get(f"airflow_platform_state{{{state}}}", 0) == (not age)
    screen = report.screen(written, time.time())
    first = overall if state == "running" else state if overall == "ok" else f"{state}, {overall}"
    assert screen.partition(":")[0] == ("unknown" if age else first)
    if light and not age:
        assert LIGHTS[light].advice in screen
        assert LIGHTS[light].advice in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has not said anything yet"),
        (document(age=200), "is silent since"),
        (document(age=-1000), "is silent since"),
        (document(age=200, **bad_day()), "is silent since"),
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (" " * 2 * health.MOST_BYTES + "{}", "cannot be read"),
        ({**document(), "overall": "fine"}, "cannot be read"),
        ({**document(), "generated": None}, "cannot be read"),
        ({**document(), "schema": 2}, "cannot be read"),
        ({**document(), "findings": None}, "cannot be read"),
        ({**document(), "services": [{"name": "weather"}]}, "cannot be read"),
    ],
)
def test_silence_is_not_green(page: Page, content: Any, words: str) -> None:
    """And says so, with what to do, and without old numbers that look new."""
    found, text, metrics = page(content)
    assert any(words in line for line in found["attention"])
    assert found["level"] == "unknown"
    assert verdict(text) == "Needs a look: the checker is silent"
    assert "<code>systemctl status airflow-checker.timer airflow-checker</code>" in text
    assert "The container of weather" not in text
    assert "<h2>Services</h2>" not in text
    assert metrics["airflow_platform_health{}"] == 3
    assert {name for name in metrics if name.startswith("airflow_platform_")} == {
        "airflow_platform_health{}",
        "airflow_platform_last_look_timestamp_seconds{}",
    }


def test_host_and_page_agree_on_silence() -> None:
    assert health.SILENT_SECONDS == report.SILENT_SECONDS
    assert set(health.SEVERITIES) == {lights.CRITICAL, lights.WARNING, lights.NOTICE}


# What the webhook looks for by itself is on the page while it finds it, whatever the checker said.
@pytest.mark.parametrize("light", [light for light in LIGHTS if light not in ON_THE_PAGE])
def test_every_light_has_its_sentence_and_its_line(page: Page, light: str) -> None:
    """The line that it names is in the document."""
    known = finding(light, "<b>", "A fault.")
    _, text, _ = page(document(overall="warning", findings=[known]))
    assert str(status.code(known["advice"])) in text
    assert f"docs/when-something-is-wrong.md#light-{light}" in text
    assert f'<a id="light-{light}"></a>' in (ROOT / "docs/when-something-is-wrong.md").read_text()


@pytest.mark.parametrize("light", ON_THE_PAGE)
def test_what_the_webhook_finds_has_its_line_before_the_checker_was_told(light: str) -> None:
    [need] = status._needs([Light(light, "it is so")], {})
    assert str(need) == f"it is so. {LIGHTS[light].advice}"
    assert need.document == f"docs/when-something-is-wrong.md#light-{light}"
    assert need.severity == LIGHTS[light].severity


def test_silence_of_the_checker_and_of_airflow_have_their_lines(client: FlaskClient, page: Page) -> None:
    """They are on the page alone, which the checker cannot ask, and in the document all the same."""
    airflow = client.application.extensions["webhook"].airflow
    answer, airflow.status = airflow.status, lambda: AirflowStatus(error="the webserver does not answer")
    try:
        _, text, _ = page(None)
    finally:
        airflow.status = answer
    written = (ROOT / "docs/when-something-is-wrong.md").read_text()
    for light in ("checker-silent", "webserver-silent"):
        assert f"docs/when-something-is-wrong.md#light-{light}" in text
        assert f'<a id="light-{light}"></a>' in written


@pytest.mark.parametrize(("url", "linked"), [("git@github.com:city/dags.git", True), ("/srv/dags", False)])
def test_line_of_the_document_is_a_link_where_a_browser_can_open_it(
    tmp_path: Path, url: str, linked: bool
) -> None:
    commit = "0123456789" * 4
    (tmp_path / "worktrees" / commit / "docs").mkdir(parents=True)
    (tmp_path / "worktrees" / commit / "docs/when-something-is-wrong.md").touch()
    (tmp_path / "current").symlink_to(f"worktrees/{commit}")
    (tmp_path / "health.json").write_text(
        json.dumps(document(overall="warning", findings=[finding("disk-low", "/", "The disk is low.")]))
    )
    known = Settings(
        environment="staging",
        trees_dir=tmp_path,
        state_dir=tmp_path,
        health_file=tmp_path / "health.json",
        repository=RepositorySettings(
            url=url, branch="production", deploy_key=None, known_hosts=None, timeout=1
        ),
        github_repository="city/dags",
    )
    app = create_app({"TESTING": True, "SETTINGS": known, "VAULT": VaultDouble()})
    text = app.test_client().get("/", headers=BROWSER).get_data(as_text=True)
    for path in (
        "docs/when-something-is-wrong.md#light-disk-low",
        "docs/when-something-is-wrong.md#light-never-synced",
    ):
        link = f'<a href="https://github.com/city/dags/blob/{commit}/{path}">{path}</a>'
        assert (link in text) == linked
        assert (f"<code>{path}</code>" in text) != linked


@pytest.mark.parametrize("address", [status.BACKUPS, health.LOOK])
def test_documents_that_the_page_names_exist(address: str) -> None:
    path, _, anchor = address.partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
    assert not anchor or anchor in {heading.lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("git@github.com:city/dags.git", True),
        ("ssh://git@github.com/city/dags.git", True),
        ("https://github.com/city/dags", True),
        ("https://example.org/github.com/city/dags", False),
        ("https://github.com.example.org/city/dags", False),
    ],
)
@pytest.mark.parametrize("has_documents", [True, False])
def test_link_leads_to_the_documents_that_are_live(
    tmp_path: Path, url: str, linked: bool, has_documents: bool
) -> None:
    commit = "0123456789" * 4
    tree = tmp_path / "worktrees" / f"{commit}-2"
    (tree / "docs").mkdir(parents=True)
    if has_documents:
        (tree / "docs/when-something-is-wrong.md").touch()
    (tmp_path / "current").symlink_to(f"worktrees/{commit}-2")
    repository = RepositorySettings(
        url=url, branch="production", deploy_key=None, known_hosts=None, timeout=1
    )
    found = status.manual(
        Settings(
            environment="staging",
            trees_dir=tmp_path,
            state_dir=tmp_path,
            repository=repository,
            github_repository="city/dags",
        )
    )
    address = f"https://github.com/city/dags/blob/{commit}/"
    assert found == (address if linked and has_documents else None)


def test_services_are_one_table(page: Page) -> None:
    since = report.iso(time.time() - 3 * 3600)
    _, text, metrics = page(document(services=[service("weather", since=since, restarts=7)]))
    [row] = re.findall(r"<tr>\s*<th scope=\"row\">weather</th>.*?</tr>", text, re.DOTALL)
    for part in ("running", "healthy", f'title="{since}">3 hours ago', ">7<"):
        assert part in row
    assert metrics["airflow_platform_service_up{weather}"] == 1


def test_each_hour_is_said(page: Page) -> None:
    found = document()
    found["figures"]["hours"][22].update(succeeded=12, failed=1)
    found["figures"]["hours"][23].update(succeeded=0, failed=0)
    _, text, _ = page(found)
    said = re.findall(r'<span class="said">\d\d:00 UTC: (.*?)</span>', text)
    assert len(said) == 24
    assert said[-2:] == ["12 succeeded, 1 failed", "3 running"]
    total = sum(hour["succeeded"] for hour in found["figures"]["hours"])
    assert f"{total} succeeded" in text


@pytest.mark.parametrize("changes", [{"hours": None}, {"hours": []}])
def test_outcomes_that_are_not_known_are_no_empty_day(page: Page, changes: Json) -> None:
    _, text, _ = page(document(figures=figures(time.time(), **changes)))
    assert "not known" in text
    assert "succeeded" not in text.partition("</style>")[2]


def test_disk_is_a_bar(page: Page) -> None:
    disks = [{"path": "/", "size": 1000 * 2**30, "free": 80 * 2**30, "days_until_full": 5.2}]
    low = finding("disk-low", "/", "The disk of / is low.")
    _, text, metrics = page(
        document(overall="warning", findings=[low], figures=figures(time.time(), disks=disks))
    )
    assert '<i class="warning" style="width: 92.0%"></i>' in text
    assert "8 % free: 80.0 GiB of 1000.0 GiB; full in 5.2 days" in text
    assert metrics["airflow_platform_disk_free_bytes{/}"] == 80 * 2**30
    assert metrics["airflow_platform_disk_size_bytes{/}"] == 1000 * 2**30


def test_numbers_are_on_page_screen_and_metrics_alike(page: Page) -> None:
    """Not only whether a limit is passed: inodes, growth, ends, ages of backup and copy, restarts."""
    written = document(services=[service("weather", restarts=7)])
    written["figures"]["disks"][0]["days_until_full"] = 30.0
    _, text, metrics = page(written)
    screen = report.screen(written, time.time())
    for part in ("73 % of its inodes", "3.0 MiB more than a day ago", "in 58 days", "in 200 days"):
        assert part in text
    for part in ("73% of its inodes", "412 MiB, +3 MiB within a day", "full in 30 days"):
        assert part in screen
    dates = {
        "certificate_ends": ("certificate ends", "certificate_end", 58.5),
        "token_ends": ("Connect token ends", "token_end", 200.5),
        "last_backup": ("last good backup", "last_backup", -0.25),
        "last_copy": ("last backup with a copy", "last_copy", -1.25),
    }
    for name, (words, metric, days) in dates.items():
        assert f"{words}: {written['figures'][name]}" in screen
        at = metrics[f"airflow_platform_{metric}_timestamp_seconds{{}}"]
        assert at - time.time() == pytest.approx(days * 86_400, abs=60)
    numbers = {
        "database_bytes{}": 412 * 2**20,
        "database_growth_bytes{}": 3 * 2**20,
        "disk_inodes{/}": 1_000_000,
        "disk_inodes_free{/}": 730_000,
        "disk_days_until_full{/}": 30,
        "service_restarts{weather}": 7,
    }
    assert {name: metrics[f"airflow_platform_{name}"] for name in numbers} == numbers


def test_number_that_is_not_known_is_not_told(page: Page) -> None:
    unknown = ("certificate_ends", "token_ends", "last_backup", "last_copy")
    names = (*unknown, "database_bytes", "database_growth_bytes")
    disks = [{"path": "/", "size": 10, "free": 9, "inodes": 0, "inodes_free": 0, "days_until_full": None}]
    written = document(figures=figures(time.time(), disks=disks, **dict.fromkeys(names)))
    # A token may end when no calendar reaches.
    written["figures"]["token_ends"] = "33658-09-27T01:46:40Z"
    found, text, metrics = page(written)
    assert found["level"] == "ok"
    assert "What ends" not in text
    assert "inodes" not in text
    assert not [
        name
        for name in metrics
        if re.search(r"_platform_(\w*timestamp|database|disk_(in|days))", name) and "last_look" not in name
    ]
    assert "inodes" not in report.screen(written, time.time())


def test_queue_without_a_worker_is_said(page: Page) -> None:
    _, text, metrics = page(document(**bad_day()))
    assert "airflow-worker (16 slots)" in text
    assert '<span class="tag bad">no worker</span>' in text
    assert metrics["airflow_platform_queue_length{default}"] == 12_345
    assert metrics["airflow_platform_tasks{running}"] == 3


def test_worker_hosts_are_for_prometheus(page: Page) -> None:
    _, text, metrics = page(document(**bad_day()))
    known = {name: number for name, number in metrics.items() if "_worker_host_" in name or "_uncons" in name}
    heard = known.pop("airflow_platform_worker_host_heard_timestamp_seconds{atd-worker01}")
    assert time.time() - heard == pytest.approx(4, abs=5)
    del known["airflow_platform_worker_host_heard_timestamp_seconds{atd-worker02}"]
    assert known == {
        "airflow_platform_worker_host_slots{atd-worker01}": 8,
        "airflow_platform_worker_host_slots{atd-worker02}": 4,
        "airflow_platform_worker_host_takes_tasks{atd-worker01}": 1,
        "airflow_platform_worker_host_takes_tasks{atd-worker02}": 0,
        "airflow_platform_queue_unconsumed_seconds{reports}": 640,
    }
    # Who takes no tasks consumes no queue.
    assert "atd-worker01 (8 slots)" in text
    assert "atd-worker02 (4 slots)" not in text


def test_platform_without_worker_hosts_says_nothing_of_them(client: FlaskClient, page: Page) -> None:
    """Not even that there could be such metrics."""
    _, text, _ = page(document())
    metrics = client.get("/metrics").get_data(as_text=True)
    assert "Worker hosts" not in text
    assert "worker_host" not in metrics
    assert "unconsumed" not in metrics


def test_worker_host_that_was_not_heard_has_no_time(page: Page) -> None:
    unheard = worker_host(heard_seconds_ago=None, state="silent", release="", commit="", queues=[], slots=0)
    _, _, metrics = page(document(figures=figures(time.time(), worker_hosts=[unheard])))
    assert not [name for name in metrics if "host_heard" in name]
    assert metrics["airflow_platform_worker_host_slots{atd-worker01}"] == 0


def test_page_lists_worker_hosts(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the webhook knows them, which is newer than what the checker wrote."""
    collect = status.collect
    hosts = [
        worker_host(heard_seconds_ago=180.0, state="fenced"),
        {**worker_host(name="<b>", state="silent"), **dict.fromkeys(("release", "commit", "slots"))},
    ]
    hosts[1].update(queues=[], heard_seconds_ago=None)
    monkeypatch.setattr(status, "collect", lambda: {**collect(), "workers": hosts})
    _, text, _ = page(document())
    first, second = re.findall(
        r"<tr>\s*<th scope=\"row\">(?:atd-worker01|&lt;b&gt;)</th>.*?</tr>", text, re.DOTALL
    )
    for part in (
        "fenced",
        "3 minutes ago",
        "2-11-2-d444c6765d29",
        ">012345678901<",
        "default, atd-worker01",
        ">8<",
    ):
        assert part in first
    assert '<span class="tag bad">silent</span>' in second
    assert "not yet" in second


def test_ages_and_overdue_runs_are_for_prometheus(page: Page) -> None:
    """A queue in which nothing waits has an age of 0, so that a rule can compare it."""
    _, _, metrics = page(document(**bad_day()))
    assert metrics["airflow_platform_queue_age_seconds{reports}"] == 640
    assert metrics["airflow_platform_queue_age_seconds{default}"] == 0
    assert metrics["airflow_platform_runs_overdue{}"] == 1
    assert metrics["airflow_platform_run_overdue_seconds{reports}"] == 90
    assert metrics["airflow_platform_worker_slots{airflow-worker}"] == 16
    assert metrics["airflow_platform_checker_cpu_seconds{}"] == 0.12


def test_what_became_of_tasks_is_for_prometheus(page: Page) -> None:
    """Of the whole day, and of the last hour that is over."""
    hours = figures(time.time())["hours"]
    hours[22].update(succeeded=9, failed=1, seconds=250.0, longest=95.5)
    hours[23].update(succeeded=1000, failed=3, seconds=99.0, longest=99.0)
    _, _, metrics = page(document(figures=figures(time.time(), hours=hours)))
    assert metrics["airflow_platform_tasks_ended_last_hour{succeeded}"] == 9
    assert metrics["airflow_platform_tasks_ended_last_hour{failed}"] == 1
    assert metrics["airflow_platform_tasks_ended_last_day{failed}"] == 4
    assert metrics["airflow_platform_task_duration_mean_seconds{}"] == 25
    assert metrics["airflow_platform_task_duration_longest_seconds{}"] == 95.5


@pytest.mark.parametrize("hours", [None, [], "of an earlier version", "without a task"])
def test_durations_that_are_not_known_are_not_told(page: Page, hours: Any) -> None:
    known = figures(time.time())["hours"]
    if hours == "of an earlier version":
        hours = [{name: hour[name] for name in ("from", "succeeded", "failed")} for hour in known]
    if hours == "without a task":
        hours = [{**hour, "succeeded": 0, "failed": 0, "seconds": 0.0, "longest": 0.0} for hour in known]
    found, _, metrics = page(document(figures=figures(time.time(), hours=hours)))
    assert found["level"] == "ok"
    assert not [name for name in metrics if "_duration_" in name]


def test_refusals_are_for_prometheus(page: Page) -> None:
    """By field, as long as anybody says so: a host of an earlier version does not."""
    name = "airflow_platform_docker_refusals_total{HostConfig.Privileged}"
    assert page(document(**bad_day()))[2][name] == 3
    earlier = figures(time.time())
    del earlier["refusals"]
    assert name not in page(document(figures=earlier))[2]


def test_time_of_the_last_look_is_for_prometheus(page: Page) -> None:
    _, _, metrics = page(document(age=100))
    assert time.time() - metrics["airflow_platform_last_look_timestamp_seconds{}"] == pytest.approx(
        100, abs=5
    )


@pytest.mark.parametrize("absent", ["environment", "host", "airflow_version", "figures"])
def test_checker_of_an_earlier_version_is_understood(page: Page, absent: str) -> None:
    """site.yml starts the webhook before it installs the checker."""
    found = document()
    del found[absent]
    assert page(found)[0]["level"] == "ok"


@pytest.mark.parametrize("absent", figures(0))
def test_figure_that_is_absent_breaks_nothing(page: Page, absent: str) -> None:
    found = document()
    del found["figures"][absent]
    assert page(found)[0]["level"] == "ok"


@pytest.mark.parametrize(
    ("words", "markup"),
    [
        ("Run `a <b>`, then `c`.", "Run <code>a &lt;b&gt;</code>, then <code>c</code>."),
        ("A ` that <is> alone", "A ` that &lt;is&gt; alone"),
        ("", ""),
    ],
)
def test_commands_are_shown_as_code(words: str, markup: str) -> None:
    assert str(status.code(words)) == markup


class Elements(HTMLParser):
    """The tags of a page with the names of their attributes: what no text may change."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))


CHOSEN = ("severity", "since", "anchor", "from", "state", "health", "overall", "generated")
"""What is one of a few words or a time: it decides how something is shown."""


def poisoned(value: Any, text: str) -> Any:
    """Return a document with `text` in every text but those."""
    if isinstance(value, dict):
        return {key: each if key in CHOSEN else poisoned(each, text) for key, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each, text) for each in value]
    return text if isinstance(value, str) else value


# Two backquotes mark a command, in what the checker itself says; see `status.code`.
@given(st.text(st.characters(exclude_characters="`"), min_size=1))
@example("<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 191 }}</style>&amp;")
@example("\ud800")
@example("\0")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_becomes_markup(page: Page, text: str) -> None:
    """The same elements with the same attributes, whatever containers, logs and queues are called."""
    content = document(**bad_day())
    harmless = Elements(page(poisoned(content, "text"))[1]).found
    # A queue's name decides on which row it stands.
    assert sorted(Elements(page(poisoned(content, text))[1]).found) == sorted(harmless)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_breaks_nothing(page: Page, client: FlaskClient, data: st.DataObject) -> None:
    """One value of the document is another: page and metrics answer, and are green only with the checker."""
    content: Any = copy.deepcopy(document(**(bad_day() if data.draw(st.booleans()) else {})))
    at, key = content, data.draw(st.sampled_from(sorted(content)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        )
    )
    found, text, metrics = page(content)
    green = verdict(text) == "All is well"
    assert green == (found["level"] == "ok")
    assert not green or (found["attention"], metrics["airflow_platform_health{}"]) == ([], 0)


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_no_bytes_break_the_page(client: FlaskClient, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert verdict(client.get("/", headers=BROWSER).get_data(as_text=True)).startswith("Needs a look")
    assert client.get("/metrics").status_code == 200


def test_page_is_of_one_piece(page: Page) -> None:
    """Nothing is fetched and nothing runs; HAProxy tells browsers to see to it."""
    _, text, _ = page(document(**bad_day()))
    tags = {tag for tag, _ in Elements(text).found}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "form", "base"})
    assert not re.search(r"url\(|@import|\bon\w+=", text)


def test_every_figure_of_the_checker_is_taken() -> None:
    """What the webhook does not know it leaves out, without a word."""
    finding = Finding("queue-without-worker", "default", "Nobody consumes default.")
    memory = Memory()
    memory.episodes[finding.key] = Episode(since=well().now, last=well().now)
    facts = well(worker_hosts=[WorkerHost("atd-worker01", queues=("default",))], outcomes={}, refusals={})
    written = report.build(facts, [finding], memory, CheckerSettings())["figures"]
    assert all(written[name] for name in ("disks", "hours", "workers", "worker_hosts", "unconsumed"))
    assert names(health._FIGURES(written)) == names(written)


def names(value: Any) -> Any:
    """Return the names of all fields, of those within others, too, without what they say."""
    if isinstance(value, dict):
        return {name: names(each) for name, each in value.items()}
    return [names(value[0])] if isinstance(value, list) and value else None
