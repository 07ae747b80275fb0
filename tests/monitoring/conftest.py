"""Prometheus' own tool, which reads rules and metrics as Prometheus does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from webhook.metrics import Platform

ROOT = Path(__file__).resolve().parents[2]
Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no promtool here: run bin/setup --tests")
        pytest.skip("no promtool here: run bin/setup --tests")

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], input=given, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def exposition(document: dict[str, Any], folder: Path) -> str:
    """Return what Prometheus reads of a document of the host's checker, as if it was written just now."""
    file = folder / "health.json"
    generated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write_text(json.dumps({**document, "generated": generated}))
    registry = CollectorRegistry()
    registry.register(Platform(file))
    return generate_latest(registry).decode()
