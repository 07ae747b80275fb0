"""Which Airflow releases this project takes, as playbooks/group_vars/all/releases.yml says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TABLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "playbooks/group_vars/all/releases.yml").read_text(encoding="utf-8")
)
RELEASES: dict[str, dict[str, Any]] = TABLE["project_releases"]
STOPS: list[dict[str, str]] = TABLE["project_release_stops"]
ENDS: dict[str, dict[str, str]] = TABLE["project_release_ends"]

OLDEST, *_, NEWEST = RELEASES
TESTED = [version for version, release in RELEASES.items() if release.get("tested")]
