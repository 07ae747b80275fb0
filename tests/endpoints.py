"""The platform's endpoints, as playbooks/group_vars/all/endpoints.yml says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TABLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "playbooks/group_vars/all/endpoints.yml").read_text(encoding="utf-8")
)
ENDPOINTS: list[dict[str, Any]] = TABLE["project_endpoints"]
