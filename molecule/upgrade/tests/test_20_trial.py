"""`--check`: all that can be known beforehand, and no effect on what runs."""

from __future__ import annotations

import json

import pytest
from control_node import ControlNode, Finished, version
from platform_host import Platform
from poller import Poller
from snapshot import Snapshot

pytestmark = pytest.mark.starts_on("2.5.3")


@pytest.fixture(scope="module")
def meanwhile() -> list[Finished]:
    """What other commands said that were started while the trial was at work."""
    return []


def test_trial_ends_with_a_verdict_and_no_effect(
    platform: Platform, control: ControlNode, before: Snapshot, poller: Poller, meanwhile: list[Finished]
) -> None:
    """Phases to the rehearsal, a report on the control node. It builds the images, so about 150 s."""
    # As people do when the disk gets full: what there is must not be built anew for want of a cache.
    platform.check("docker builder prune --all --force")
    # As on a host whose images came from elsewhere, and whose command is another checkout's.
    installed = platform.host.file("/usr/local/lib/airflow-release/installed")
    platform.check("rm -r build %s", installed.path)
    containers = platform.containers()
    trial = control.start("upgrade.yml", version("2.6.1"), "--check")
    trial.wait_for("the command of this checkout", lambda: installed.exists, 120)
    trial.wait_for("the build", lambda: platform.is_in("build"), 120)
    others = [control.start("upgrade.yml", version("2.6.1")), control.start("site.yml")]
    meanwhile += [other.wait(120) for other in others]
    trial.wait(600).succeeded()

    assert platform.phases() == {"build": "done", "report": "done", "rehearse": "done"}
    assert platform.operation()["state"] == "abandoned"
    report = json.loads(control.report("2.5.3", "2.6.1").read_text())
    assert report["verdict"]["blocking"] == []
    assert (report["from"]["airflow_version"], report["to"]["airflow_version"]) == ("2.5.3", "2.6.1")
    assert "upgrade-orders" in json.dumps(report["dags"])
    assert report["compose"]["diff"].startswith("--- ")
    page = control.report("2.5.3", "2.6.1", "html").read_text()
    assert "2.5.3" in page
    assert "2.6.1" in page

    assert platform.containers() == containers
    assert before.differences(platform.snapshot()) == []
    assert platform.databases() == {"airflow"}
    assert control.pin == "2.5.3"
    assert poller.unanswered() == []
    assert poller.outages("airflow") == []


def test_nothing_else_is_done_meanwhile(meanwhile: list[Finished]) -> None:
    """Another upgrade and `site.yml` name the first; that the first went on, its own test has shown."""
    for refused in meanwhile:
        refused.failed("An operation is active on .*: upgrade airflow_version=2.6.1")
