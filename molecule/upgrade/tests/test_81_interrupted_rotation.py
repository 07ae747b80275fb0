"""rotate.yml that did not finish: the vault is ahead, and the next run finishes with its values."""

from __future__ import annotations

import pytest
from control_node import ControlNode
from long_tests import when_asked
from platform_host import Platform
from snapshot import Snapshot
from test_80_rotate import values

from tests.releases import NEWEST

AHEAD = (
    "vault has other values than the host runs with: "
    "fernet_key, postgres_password, redis_password, webserver_secret_key"
)
GENERATED = "New in the vault"


@when_asked
def test_check_says_what_would_be_rotated_and_changes_nothing(
    platform: Platform, control: ControlNode
) -> None:
    """As tests/plugins/test_rotation.py has it of the role alone. About 25 s."""
    old, containers = values(platform), platform.containers()
    done = control.run("rotate.yml", "--check").succeeded()
    assert "would get new ones" in " ".join(done.output.split())
    assert values(platform) == old
    assert platform.containers() == containers
    # Nor is the vault ahead now.
    assert "Host and vault agree" in control.run("rotate.yml", "--check").output


@when_asked
@pytest.mark.starts_on(NEWEST)
def test_rotation_that_went_back_is_finished_by_the_next_run(
    platform: Platform, control: ControlNode, before: Snapshot
) -> None:
    """A task takes longer than the drain may: everything is as before, but for the vault. About 300 s."""
    old = values(platform)
    with platform.long_task() as task:
        task.wait_until_running()
        first = control.run("rotate.yml", "--extra-vars=upgrade_drain_timeout=5").failed(
            "upgrade_drain_timeout"
        )
        assert GENERATED in first.output
        assert task.state == "running"
        assert values(platform) == old
        control.run("site.yml").failed(AHEAD, "run ansible-playbook rotate.yml")
        control.run("upgrade.yml").failed(AHEAD, "run ansible-playbook rotate.yml")
        assert values(platform) == old
        task.let_end()
    second = control.run("rotate.yml").succeeded()
    assert GENERATED not in second.output
    new = values(platform)
    assert [variable for variable in old if new[variable] == old[variable]] == []
    assert before.differences(platform.snapshot()) == []
    control.run("site.yml").succeeded()


@when_asked
@pytest.mark.starts_on(NEWEST)
def test_control_node_killed_in_the_switch(
    platform: Platform, control: ControlNode, before: Snapshot
) -> None:
    """The host has the new values and waits for a word; the next run gives it, and makes no newer values."""
    old = values(platform)
    rotation = control.start("rotate.yml", "--extra-vars=rotate=fernet_key")
    rotation.wait_for("the new values", lambda: platform.operation()["state"] == "unconfirmed", 400)
    rotation.kill()
    switched = values(platform)
    assert switched["AIRFLOW__CORE__FERNET_KEY"] != old["AIRFLOW__CORE__FERNET_KEY"]
    done = control.run("rotate.yml", "--extra-vars=rotate=fernet_key").succeeded()
    assert GENERATED not in done.output
    assert values(platform) == switched
    assert before.differences(platform.snapshot()) == []
