"""The comparison of upstream's Compose files: over real HTTP, from the sandbox, and with faults."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from airflow_release.core.errors import ReleaseError
from airflow_release.report import compose_file
from flask import Flask, Response, redirect
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Response as Answer

from sandbox import upstream
from tests.served import served

PATH = "/docs/apache-airflow/{version}/docker-compose.yaml"


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The sandbox's site, with some addresses that misbehave."""
    app: Flask = upstream.create_app()

    @app.get("/large/<version>")
    def large(version: str) -> Response:
        return Response(b"x" * (compose_file.SIZE_LIMIT + 1))

    @app.get("/binary/<version>")
    def binary(version: str) -> Response:
        return Response(b"\xff\xfe\x00")

    @app.get("/elsewhere/<version>")
    def elsewhere(version: str) -> Answer:
        return redirect("file:///etc/passwd")

    @app.get("/same/<version>")
    def same(version: str) -> Response:
        return Response("services: {}\n")

    with served(app) as url:
        yield url


def test_diff_is_what_upstream_changed(site: str) -> None:
    result = compose_file.compare(site + PATH, "2.5.3", "2.6.1")
    assert result["note"] == ""
    assert result["addresses"] == [site + PATH.format(version=version) for version in ("2.5.3", "2.6.1")]
    lines = result["diff"].splitlines()
    assert lines[:2] == ["--- 2.5.3/docker-compose.yaml", "+++ 2.6.1/docker-compose.yaml"]
    assert '+    AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK: "true"' in lines


def test_same_file_has_no_diff(site: str) -> None:
    result = compose_file.compare(f"{site}/same/{{version}}", "2.5.3", "2.6.1")
    assert (result["diff"], result["note"]) == ("", "The two files are the same.")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (PATH.replace("docker-compose", "none"), "answers 404"),
        ("/large/{version}", "more than 1048576 bytes"),
        ("/binary/{version}", "UnicodeDecodeError"),
        ("/elsewhere/{version}", "answers 302"),
    ],
)
def test_file_that_cannot_be_had_is_a_note(site: str, path: str, says: str) -> None:
    result = compose_file.compare(site + path, "2.5.3", "2.6.1")
    assert result["diff"] == ""
    assert re.match(rf"Not compared: {site}.*{says}", result["note"]), result["note"]


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/{{version}}"
        note = compose_file.compare(address, "2.5.3", "2.6.1")["note"]
    assert "cannot be reached ([Errno 111] Connection refused)" in note


def test_site_that_is_mute_costs_no_more_than_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_file, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/{{version}}"
        assert "timed out" in compose_file.compare(address, "2.5.3", "2.6.1")["note"]


def test_no_address_is_a_note() -> None:
    assert (
        compose_file.compare("", "2.5.3", "2.6.1")["note"]
        == "No address for upstream's Compose files is set."
    )


@pytest.mark.parametrize(
    "template", ["file:///etc/{version}", "ftp://host/{version}", "https:///{version}", "https://host/", "x"]
)
def test_what_is_no_address_is_refused(template: str) -> None:
    with pytest.raises(ReleaseError, match="is not an address"):
        compose_file.address(template, "2.6.1")


@given(st.text())
def test_version_stays_in_its_place(version: str) -> None:
    """Whatever an image says its version is, it leads to no other folder or host."""
    address = compose_file.address("https://host/docs/{version}/file", version)
    assert re.fullmatch(r"https://host/docs/[^/?#]*/file", address)
