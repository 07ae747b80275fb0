"""The webhook is killed in the middle of a sync: what is live is the old commit or the new one, whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from airflow_api import wait_for
from delivery import PATIENCE, STATE, TREES, Delivery, dag_source, new_name

FILES = 50
MOMENTS = {
    "called": 'until [ "$(find {state} -name "webhook.sqlite3*" -newer /run/strike)" ]; do :; done',
    "prepared": "until ls -d {trees}/worktrees/.new-* >/dev/null 2>&1; do :; done",
    "switched": 'until [ "$(readlink {trees}/current)" != "{old}" ]; do :; done',
}
"""When to strike: when the call is noted, while the new tree is made or checked, right after the switch."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_webhook_leaves_no_mixture(
    delivery: Delivery, containers: dict[str, Any], moment: str
) -> None:
    """Then it comes back by itself, and finishes what it had begun."""
    folder = new_name("whole")

    def files(version: str) -> dict[str, str | None]:
        parts: dict[str, str | None] = {
            f"dags/{folder}/{number}.txt": f"{version}\n" for number in range(FILES)
        }
        return {**parts, f"dags/{folder}.py": dag_source(folder, version)}

    old = delivery.repository.push(files("old"))
    delivery.announce(old)
    delivery.wait_until_live(old)
    webhook = containers["webhook"]["Id"]
    process = f"docker inspect --format '{{{{.State.Pid}}}}' {webhook}"
    before = delivery.host.check_output(process)
    wait = MOMENTS[moment].format(state=STATE, trees=TREES, old=f"worktrees/{old}")
    new = delivery.repository.push(files("new"))
    with ThreadPoolExecutor(1) as pool:
        # Not `docker kill`, after which Docker would not start it again.
        strike = pool.submit(
            delivery.host.run, "timeout 60 bash -c %s", f"touch /run/strike; {wait}; kill -9 {before}"
        )
        wait_for("the watcher", lambda: delivery.host.file("/run/strike").exists, 10, pause=0.1)
        delivery.announce(new)
        struck = strike.result()
    delivery.host.check_output("rm /run/strike")
    assert struck.rc == 0, struck.stderr

    live, count, *contents = delivery.host.check_output(
        f"cd -P {TREES}/current && basename $PWD && ls dags/{folder} | wc -l && cat dags/{folder}/* | sort -u"
    ).split()
    assert live in (old, new)
    assert int(count) == FILES
    assert contents == ["old" if live == old else "new"]

    def is_back() -> bool:
        return delivery.host.check_output(process) not in ("0", before)

    wait_for("Docker to start it again", is_back, PATIENCE)
    delivery.wait_until_live(new, 60)
    delivery.wait_until_known(folder, "new")
    leftovers = delivery.host.run(f"ls -d {TREES}/worktrees/.new-* {TREES}/.current-*")
    assert leftovers.stdout == ""
    assert delivery.sync("once").rc == 0
