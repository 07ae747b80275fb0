"""A platform on a bad day, its page of metrics, and the programs of Prometheus, which read them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from webhook.app import create_app
from webhook.metrics import Platform
from webhook.settings import Settings

from tests.missing import missing
from tests.webhook.doubles import VaultDouble
from tests.webhook.health_document import bad_day, document
from webhook import state

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "token-of-prometheus"
Promtool = Callable[..., subprocess.CompletedProcess[str]]


def program(name: str) -> str:
    """Return the path of a program of Debian's package `prometheus`."""
    found = shutil.which(name)
    if found is None:
        missing(f"no {name} here: run bin/setup --tests")
    return found


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    path = program("promtool")

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, *arguments], input=given, capture_output=True, text=True, timeout=300, check=False
        )

    return run


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The webhook of a platform on a bad day, of which everything is known; its metrics need the token."""
    folder = tmp_path_factory.mktemp("host")
    file, token, states = (folder / name for name in ("health.json", "metrics_token", "state"))
    file.write_text(json.dumps(document(**bad_day())))
    token.write_text(f"{TOKEN}\n")
    states.mkdir()
    now = time.time()
    live = state.Commit("0123456789" * 4, "somebody", now - 3600, "change a DAG")
    state.save(states / "state.json", state.State(live=live, last_success=now - 60))
    settings = Settings(
        environment="staging",
        trees_dir=folder,
        state_dir=states,
        health_file=file,
        metrics_token_file=token,
    )
    app = create_app({"TESTING": True, "SETTINGS": settings, "VAULT": VaultDouble()})
    app.extensions["webhook"].metrics.synced("switched", 2.5)
    app.extensions["webhook"].store.remember("relay", {"state": "connected", "at": now})
    assert app.test_client().post("/sync").status_code == 401
    return app


@pytest.fixture(scope="module")
def page(app: Flask) -> str:
    """The page of metrics."""
    answer = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads((ROOT / "monitoring/dashboard.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    """Return all that the dashboard asks Prometheus."""
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


def exposition(document: dict[str, Any], folder: Path) -> str:
    """Return what Prometheus reads of a document of the host's checker, as if it was written just now."""
    file = folder / "health.json"
    generated = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write_text(json.dumps({**document, "generated": generated}))
    registry = CollectorRegistry()
    registry.register(Platform(file))
    return generate_latest(registry).decode()
