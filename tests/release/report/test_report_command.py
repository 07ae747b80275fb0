"""`airflow-release report` from end to end: its document, its words, and what it never says."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable

import pytest
from airflow_release.core.errors import ReleaseError

from tests.release.report.conftest import SECRET, Host, Json
from tests.release.report.example_dags import FILES, GOOD

MakeHost = Callable[..., Host]


def notes(report: Json, kind: str) -> list[str]:
    return [note["text"] for note in report["verdict"]["notes"] if note["kind"] == kind]


def test_report_of_an_upgrade(make_host: MakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    """With everything that the way from 2.6.1 to 2.11.2 brings, and without any setting's value."""
    host = make_host("2.6.1", "2.11.2")
    for name, text in FILES.items():
        host.write(name, text)
    host.set(host.next, {"AIRFLOW__CELERY__STALLED_TASK_TIMEOUT": SECRET, "AIRFLOW__DASK__TLS_KEY": SECRET})
    report = host.report("--acknowledge", "sometimes", "no-such-dag")

    assert (report["from"]["airflow_version"], report["to"]["airflow_version"]) == ("2.6.1", "2.11.2")
    assert report["to"]["image"] == "airflow-platform/airflow:2.11.2-0123456789ab"
    [cause] = report["verdict"]["blocking"]
    assert cause["files"] == [
        {"path": "dags/nightly_docker.py", "dag_ids": ["nightly-docker"], "acknowledge": "nightly-docker"}
    ]
    assert notes(report, "dag") == [
        "dags/by_version.py breaks, as acknowledged.",
        "dags/broken.py is broken on the running Airflow, too.",
        "dags/newer.py imports again on the new Airflow.",
        "2 files of DAGs import with warnings.",
    ]
    assert notes(report, "acknowledged") == ["no-such-dag was acknowledged, and nothing of that name breaks."]
    assert ["surely-not-there==1.0" in note for note in notes(report, "requirements")] == [True]
    assert [change["services"] for change in report["settings"]] == [
        ["airflow-scheduler", "airflow-worker"]
    ] * 2
    assert "AIRFLOW__DASK__TLS_KEY no longer has an effect" in notes(report, "setting")[0]
    assert report["packages"][0]["provider"]
    assert {"name": "apache-airflow", "from": "2.6.1", "to": "2.11.2"}.items() <= next(
        change for change in report["packages"] if change["name"] == "apache-airflow"
    ).items()
    assert report["seconds"].keys() == {"images", "dags", "fix", "settings", "compose"}

    output = "".join(capfd.readouterr())
    lines = output.splitlines()
    assert lines[0] == "Airflow 2.6.1 -> 2.11.2"
    assert lines[1].startswith("stops: 1 file: ValueError: Invalid `auto_remove` value True")
    assert lines[3] == "       - dags/nightly_docker.py (nightly-docker)"
    assert lines[-2:] == [
        "fix.patch repairs 1 of 1 file: git apply fix.patch",
        "1 DAG file in the way of the upgrade.",
    ]
    assert SECRET not in output + host.output.read_text()


def test_report_of_the_same_version(make_host: MakeHost) -> None:
    """A change of the team's own packages. Both images see one tree, even if a push goes live meanwhile."""
    host = make_host()
    host.write("dags/good.py", GOOD)
    report = host.report("--compose-address-template", "http://127.0.0.1:1/{version}")
    assert report["verdict"] == {"blocking": [], "notes": []}
    assert report["packages"] == []
    assert "stays" in report["compose"]["note"]
    calls = [json.loads(line) for line in host.log.read_text().splitlines()]
    assert [call[-1] for call in calls if "check" in call] == [
        str(host.directory / "trees/worktrees/0123abc")
    ] * 2
    # For root alone: it has lines of the DAGs in it.
    assert stat.S_IMODE(host.output.stat().st_mode) == 0o600
    assert [path.name for path in host.next.glob("*report.json*")] == ["report.json"]


def no_environment(host: Host) -> None:
    (host.next / ".env").unlink()


def no_image_name(host: Host) -> None:
    (host.next / ".env").write_text("AIRFLOW_VERSION=2.6.1\n")


def no_image(host: Host) -> None:
    (host.next / ".env").write_text("AIRFLOW_IMAGE=airflow-platform/airflow:2.6.9-0123456789ab\n")


def no_tree(host: Host) -> None:
    (host.directory / "trees/current").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_environment, "next/.env names no AIRFLOW_IMAGE"),
        (no_image_name, "next/.env names no AIRFLOW_IMAGE"),
        (no_image, "No such image: airflow-platform/airflow:2.6.9"),
        (no_tree, "there is no live tree of DAGs"),
    ],
)
def test_no_report_leaves_nothing_behind(
    make_host: MakeHost, damage: Callable[[Host], None], says: str
) -> None:
    """A clear word, no half document."""
    host = make_host()
    damage(host)
    with pytest.raises(ReleaseError) as raised:
        host.run()
    assert says in f"{raised.value}\n{raised.value.log}"
    assert list(host.next.glob("*report.json*")) == []


def test_wrong_address_is_refused_before_the_work(make_host: MakeHost) -> None:
    host = make_host()
    with pytest.raises(ReleaseError, match="is not an address"):
        host.run("--compose-address-template", "file:///etc/{version}")
    assert not host.log.exists()


def test_container_that_takes_too_long_is_removed(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's end is not the container's."""
    monkeypatch.setattr("airflow_release.report.release_folder.FACTS_SECONDS", 1)
    monkeypatch.setenv("DOCKER_DOUBLE_DELAY", "60")
    host = make_host()
    with pytest.raises(ReleaseError, match="did not end within 1 s"):
        host.run()
    [run, remove] = [json.loads(line) for line in host.log.read_text().splitlines()]
    assert remove == ["rm", "--force", run[run.index("--name") + 1]]
