"""rotate.yml: new keys and passwords by the same road, and no task lost."""

from __future__ import annotations

import pytest
from control_node import ControlNode
from platform_host import Platform
from poller import Poller
from snapshot import Snapshot

from tests.releases import NEWEST

ROTATED = {
    "airflow.env": ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__WEBSERVER__SECRET_KEY"),
    "postgres.env": ("POSTGRES_PASSWORD",),
    "redis.env": ("REDISCLI_AUTH",),
}


def values(platform: Platform) -> dict[str, str]:
    """Return what is rotated, by variable."""
    return {
        variable: platform.check(f"sed -n 's/^{variable}=//p' env/{file}").strip()
        for file, variables in ROTATED.items()
        for variable in variables
    }


@pytest.mark.starts_on(NEWEST)
def test_rotation_loses_no_task(
    platform: Platform, control: ControlNode, before: Snapshot, poller: Poller
) -> None:
    """A task at work ends well; what was encrypted can be read, with the new key alone. About 120 s."""
    old = values(platform)
    assert all(old.values())
    with platform.long_task() as task:
        task.wait_until_running()
        rotation = control.start("rotate.yml", "--extra-vars=confirm_host=atd-data03")
        rotation.wait_for("the drain", lambda: platform.is_in("drain"), 240)
        assert task.state == "running"
        task.let_end()
        done = rotation.wait(600).succeeded()
        assert task.state == "success"
    # Tried beside the live database, before the vault had other values.
    assert "The rotation will keep Airflow's pages away for about" in " ".join(done.output.split())
    assert "airflow_next" not in platform.databases()
    new = values(platform)
    assert [variable for variable in old if new[variable] == old[variable]] == []
    # One key, not a list with the old one: whoever has only the old one can read nothing any more.
    assert "," not in new["AIRFLOW__CORE__FERNET_KEY"]
    assert before.differences(platform.snapshot()) == []
    assert poller.unanswered() == []
    platform.pulse_goes_on()
