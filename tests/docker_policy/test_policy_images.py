"""Names of images, pulls and logins."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from docker_policy.errors import RefusedError
from docker_policy.images import Images, reference, registry
from docker_policy.policy import Policy
from docker_policy.settings import File, Settings, SettingsError, from_document

from tests.docker_policy.attacks import LOGINS, PULLS
from tests.docker_policy.conftest import LIMITS, request

DIGEST = "sha256:" + "0" * 64
HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("beef", "docker.io/library/beef:latest"),
        ("docker.io/alpine:3", "docker.io/library/alpine:3"),
        ("index.docker.io/atddocker/x", "docker.io/atddocker/x:latest"),
        ("atddocker/x:production", "docker.io/atddocker/x:production"),
        (f"atddocker/x@{DIGEST}", f"docker.io/atddocker/x@{DIGEST}"),
        (f"atddocker/x:1@{DIGEST}", f"docker.io/atddocker/x:1@{DIGEST}"),
        ("ghcr.io/city/a/b:1", "ghcr.io/city/a/b:1"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x:1", "localhost:5000/x:1"),
        ("Host/x", "Host/x:latest"),
        ("0" * 64, f"docker.io/library/{'0' * 64}:latest"),
    ],
)
def test_full_name(name: str, full: str) -> None:
    assert str(reference(name, "Image")) == full


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("atddocker/*", "atddocker/x:production", True),
        ("atddocker/*", "docker.io/atddocker/x", True),
        ("atddocker/*", f"atddocker/x@{DIGEST}", True),
        ("atddocker/*", "atddocker/x/y", False),
        ("atddocker/*", "ghcr.io/atddocker/x", False),
        ("atddocker/*", "127.0.0.1/atddocker/x", False),
        ("atddocker/etl-*:production", "atddocker/etl-a:production", True),
        ("atddocker/etl-*:production", "atddocker/etl-a", False),
        ("atddocker/etl-*:production", f"atddocker/etl-a:production@{DIGEST}", False),
        ("atddocker/x:1.*", "atddocker/x:1.2", True),
        ("atddocker/x:1.*", "atddocker/x:102", False),
        ("alpine", "alpine:3", True),
        ("alpine", "library/alpine", True),
        ("*", "alpine", True),
        ("*", "atddocker/x", False),
        ("*/*", "ghcr.io/x", False),
        ("localhost:5000/*", "localhost:5000/x", True),
    ],
)
def test_pattern(pattern: str, name: str, matches: bool) -> None:
    images = Images([pattern], "dag_container_images")
    if matches:
        images.check(name, "Image")
    else:
        with pytest.raises(RefusedError, match="dag_container_images"):
            images.check(name, "Image")


@pytest.mark.parametrize("pattern", ["", "*.io/x", "a b", "atddocker/", "x:", "[a]", "http://x", "*:5000/x"])
def test_unusable_pattern_is_named(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Images([pattern], "dag_container_images")


@pytest.mark.parametrize(
    ("query", "target"),
    [
        ("tag=production&fromImage=atddocker%2Fx", "fromImage=docker.io%2Fatddocker%2Fx&tag=production"),
        ("fromImage=atddocker/x", "fromImage=docker.io%2Fatddocker%2Fx&tag=latest"),
        ("fromImage=atddocker/x:1", "fromImage=docker.io%2Fatddocker%2Fx&tag=1"),
        (
            f"fromImage=atddocker/x&tag={DIGEST}",
            f"fromImage=docker.io%2Fatddocker%2Fx&tag={DIGEST.replace(':', '%3A')}",
        ),
    ],
)
def test_pull_names_one_image(policy: Policy, query: str, target: str) -> None:
    decision = policy.decide(request("POST", f"/v1.41/images/create?{query}"))
    assert decision.target == f"/v1.41/images/create?{target}"


@pytest.mark.parametrize("query", PULLS)
def test_other_pulls_and_imports_are_refused(policy: Policy, query: str) -> None:
    with pytest.raises(RefusedError):
        policy.decide(request("POST", f"/images/create?{query}"))


def test_form_cannot_override_a_pull(policy: Policy) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    asked = request("POST", "/images/create?fromImage=atddocker/x", b"fromImage=evil/x", headers)
    with pytest.raises(RefusedError, match="body"):
        policy.decide(asked)


def login(policy: Policy, **fields: Any) -> dict[str, Any]:
    document = {"username": "city", "password": "secret", **fields}
    built: dict[str, Any] = json.loads(policy.decide(request("POST", "/v1.41/auth", document)).body)
    return built


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("https://index.docker.io/v1/:80", HUB),
        (HUB, HUB),
        ("docker.io", HUB),
        ("https://registry-1.docker.io", HUB),
        (None, HUB),
        ("ghcr.io", "https://ghcr.io"),
        ("https://GHCR.io/v2/", "https://ghcr.io"),
    ],
)
def test_login_at_a_listed_registry(policy: Policy, address: str | None, sent: str) -> None:
    built = login(policy, serveraddress=address, email=None)
    assert built == {"username": "city", "password": "secret", "serveraddress": sent}


@pytest.mark.parametrize("address", LOGINS)
def test_login_elsewhere_is_refused(policy: Policy, address: str) -> None:
    with pytest.raises(RefusedError, match="dag_container_registries"):
        login(policy, serveraddress=address)


@pytest.mark.parametrize("field", ["Serveraddress", "auth", "x", "\u017ferveraddress"])
def test_other_fields_of_a_login_are_refused(policy: Policy, field: str) -> None:
    with pytest.raises(RefusedError):
        login(policy, **{field: "127.0.0.1"})


def header(document: Any) -> dict[str, str]:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {"x-registry-auth": base64.urlsafe_b64encode(text).decode()}


def test_credentials_of_a_pull_are_written_anew(policy: Policy) -> None:
    given = {
        "username": "city",
        "password": "p\u00e4ss",
        "email": None,
        "serveraddress": "https://index.docker.io/v1/:80",
    }
    decision = policy.decide(request("POST", "/images/create?fromImage=atddocker/x", None, header(given)))
    [(name, value)] = decision.headers
    assert name == "X-Registry-Auth"
    sent = {"username": "city", "password": "p\u00e4ss", "serveraddress": HUB}
    assert json.loads(base64.urlsafe_b64decode(value)) == sent


@pytest.mark.parametrize(
    "headers",
    [
        header({"serveraddress": "127.0.0.1"}),
        header({"username": 1}),
        header({"other": "x"}),
        header(b'{"username": "a", "username": "b"}'),
        header(b"x"),
        header([]),
        {"x-registry-auth": "not base64!"},
        {"x-registry-auth": "e30"},
    ],
)
def test_other_credentials_of_a_pull_are_refused(policy: Policy, headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError):
        policy.decide(request("POST", "/images/create?fromImage=atddocker/x", None, headers))


def test_image_is_inspected_by_its_full_name(policy: Policy) -> None:
    decision = policy.decide(request("GET", "/v1.41/images/atddocker/x:1/json"))
    assert decision.target == "/v1.41/images/docker.io/atddocker/x:1/json"


@pytest.mark.parametrize(
    "name", ["alpine", DIGEST, "0" * 12, "airflow-platform/airflow:1", "atddocker/../x", "a//b"]
)
def test_other_images_are_not_inspected(policy: Policy, name: str) -> None:
    with pytest.raises(RefusedError):
        policy.decide(request("GET", f"/images/{name}/json"))


@pytest.mark.parametrize(
    ("address", "name"),
    [("", ""), ("a b", ""), ("HTTPS://X", ""), ("x:5000", "x:5000")],
)
def test_registry(address: str, name: str) -> None:
    assert registry(address) == name


def test_long_address_is_none() -> None:
    """It is refused for its length: to look at it all would take hours."""
    assert registry("a-" * 200_000) == ""


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": ["a b"]}, "a b"),
        ({"images": "atddocker/*"}, "images"),
        ({"registries": ["http://"]}, "registries"),
        ({"memory_mib": 0}, "memory_mib"),
        ({"pids": True}, "pids"),
        ({"socket": "relative"}, "socket"),
        ({"no_new_privileges": 1}, "no_new_privileges"),
        ({"other": 1}, "other"),
    ],
)
def test_unusable_setting_is_named(changes: dict[str, Any], named: str) -> None:
    document = {name: list(value) if isinstance(value, tuple) else value for name, value in LIMITS.items()}
    assert from_document(document) == Settings(**LIMITS)
    with pytest.raises(SettingsError, match=named):
        from_document({**document, **changes})


def test_missing_settings_are_named(tmp_path: Any) -> None:
    (tmp_path / "policy.json").write_text('{"images": []}')
    with pytest.raises(SettingsError, match="volumes"):
        File(tmp_path / "policy.json").read()
    with pytest.raises(SettingsError, match="nothing"):
        File(tmp_path / "nothing").read()
