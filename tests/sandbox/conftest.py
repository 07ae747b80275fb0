"""The sandbox's Connect server as a test client, and 1Password's contract as a judge of its answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from jsonschema import Draft7Validator, FormatChecker
from werkzeug.test import TestResponse

from sandbox.connect import create_app
from tests.missing import missing
from tests.served import TOKEN, VAULT_ID, served

FORMATS = FormatChecker(formats=())


def is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


FORMATS.checks("date-time", raises=ValueError)(is_date_time)


class Contract:
    """1Password's OpenAPI description of Connect."""

    def __init__(self, path: Path) -> None:
        self._document = yaml.safe_load(path.read_text(encoding="utf-8"))
        self._paths = {
            re.compile(re.sub(r"\{\w+\}", "[^/]+", template)): (template, operations)
            for template, operations in self._document["paths"].items()
        }

    def answers(self) -> set[tuple[str, str, int]]:
        """Return every (method, path template, status) that the contract documents."""
        return {
            (method.upper(), template, int(status))
            for template, operations in self._document["paths"].items()
            for method, operation in operations.items()
            if method != "parameters"
            for status in operation["responses"]
        }

    def properties(self, schema: str) -> set[str]:
        """Return the names of the properties of a schema and of those that it is composed of."""
        names: set[str] = set()
        for part in [self._document["components"]["schemas"][schema]]:
            for piece in [part, *part.get("allOf", [])]:
                names |= piece.get("properties", {}).keys()
                if "$ref" in piece:
                    names |= self.properties(piece["$ref"].rpartition("/")[2])
        return names

    def check(self, response: TestResponse) -> tuple[str, str, int]:
        """Assert that the response is one that the contract documents; return which."""
        request = response.request
        path = request.path.removeprefix("/v1")
        template, operations = next(found for expr, found in self._paths.items() if expr.fullmatch(path))
        documented = operations[request.method.lower()]["responses"]
        assert str(response.status_code) in documented, (request.method, path, response.text)
        content = documented[str(response.status_code)].get("content")
        if content is None:
            assert response.data == b""
        else:
            assert response.mimetype in content
            body = response.get_json() if response.is_json else response.text
            schema = {
                "allOf": [content[response.mimetype]["schema"]],
                "components": self._document["components"],
            }
            Draft7Validator(schema, format_checker=FORMATS).validate(body)
        return request.method, template, response.status_code


@pytest.fixture(scope="session")
def contract() -> Contract:
    path = os.environ.get("CONNECT_OPENAPI")
    if not path:
        missing(
            "CONNECT_OPENAPI does not name 1Password's OpenAPI file, so the sandbox is not checked against it"
        )
    return Contract(Path(path))


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    return authorized_client(tmp_path)


def authorized_client(state: Path) -> FlaskClient:
    client = create_app(state, TOKEN, VAULT_ID).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def connect_url(tmp_path: Path) -> Iterator[str]:
    with served(create_app(tmp_path, TOKEN, VAULT_ID)) as url:
        yield url


@pytest.fixture
def document() -> dict[str, Any]:
    """Return an item as a client sends it, with a field in a section and one to generate."""
    return {
        "title": "Made by a test",
        "vault": {"id": VAULT_ID},
        "category": "LOGIN",
        "tags": ["one", "two"],
        "urls": [{"href": "https://example.com", "primary": True}],
        "sections": [{"id": "here", "label": "development"}],
        "fields": [
            {"id": "name", "type": "STRING", "label": "username", "value": "ada", "purpose": "USERNAME"},
            {"type": "CONCEALED", "label": "key", "section": {"id": "here"}, "generate": True},
        ],
    }
