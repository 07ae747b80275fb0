"""The dead man's switch counts the calls at its own address, and no others."""

from __future__ import annotations

import pytest

from sandbox.heartbeat import create_app


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_counts_calls_at_its_address(method: str) -> None:
    switch = create_app("made-up").test_client()
    assert switch.open("/ping/made-up", method=method).status_code == 200
    assert switch.open("/ping/another", method=method).status_code == 404
    assert switch.get("/calls").get_json() == {"calls": 1}
