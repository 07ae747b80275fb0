"""A run that comes to a worker host while another machine's operation has laid its next release out there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.missing import needs
from tests.policy.conftest import Rendered
from tests.policy.operations import said
from tests.policy.test_prepare_workers import Prepared
from tests.policy.test_worker_role import REPOSITORY


@needs(root=True)
@pytest.mark.parametrize("state", ["prepared", "succeeded"])
def test_what_an_active_operation_has_laid_out_stays(
    tmp_path: Path, rendered: dict[str, Rendered], state: str
) -> None:
    """site.yml lets operations begin before it comes to the workers, which may take long."""
    hosts = Prepared(tmp_path, rendered[REPOSITORY])
    (hosts.main / "releases").mkdir(exist_ok=True)
    (hosts.main / "releases/operation.json").write_text(json.dumps({"state": state}))
    (hosts.platform / "tunnel").mkdir()
    (hosts.platform / "tunnel/worker.pem").touch()
    laid_out = hosts.platform / "releases/2-b/release.json"
    laid_out.parent.mkdir(parents=True)
    laid_out.touch()
    (tmp_path / "unit.json").write_text(json.dumps({"ActiveState": "active", "enabled": True}))
    tasks = [
        {
            "name": f"Run {part}",
            "ansible.builtin.include_role": {"name": "worker", "tasks_from": part},
        }
        for part in ("main_host", "files")
    ]
    (tmp_path / "tasks.yml").write_text(yaml.safe_dump(tasks))
    run = hosts.run(str(tmp_path / "tasks.yml"))
    active = state == "prepared"
    assert (run.returncode != 0, laid_out.exists(), hosts.told() == []) == (active, active, active), said(run)
    assert (
        "An operation is active on main, and its own command ends with the workers" in said(run)
    ) == active
