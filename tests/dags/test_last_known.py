"""What tasks know of 1Password while Connect gives no answer (images/airflow/lib/last_known.py)."""

import logging
import os

import pytest

ITEM, LABEL = "Keys", "development.apiKey"
VALUE = "canary of the vault"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the tmpfs, and no waiting."""
    monkeypatch.setattr("last_known.FOLDER", tmp_path / "connect-answers")
    monkeypatch.setattr("utils.onepassword.RETRIES", 0)
    monkeypatch.setattr("connect_secrets.RETRIES", 0)
    return tmp_path / "connect-answers"


@pytest.fixture
def keys(connect):
    """The vault with an item."""
    connect.add(ITEM, [("development", "apiKey", VALUE)])
    connect.add("Airflow variables", [("development", "limit", VALUE)])
    return connect


def by_load_dict():
    from utils.onepassword import load_dict

    return load_dict({"NAME": {"opitem": ITEM, "opfield": LABEL}})["NAME"]


def by_backend():
    from connect_secrets import ConnectBackend

    return ConnectBackend().get_variable("limit")


@pytest.fixture
def answer(monkeypatch):
    """Return a function that has every request answered by an error, or by a status."""
    from requests import Response
    from requests.adapters import HTTPAdapter

    def have(outcome):
        def send(self, request, **options):
            if isinstance(outcome, Exception):
                raise outcome
            response = Response()
            response.status_code, response.url, response.request = outcome, request.url, request
            response._content = b'{"message": "injected"}'
            return response

        monkeypatch.setattr(HTTPAdapter, "send", send)

    return have


def outcomes():
    from requests.exceptions import ConnectionError, ConnectTimeout, ReadTimeout

    return [ConnectionError("refused"), ConnectTimeout("slow"), ReadTimeout("slow"), 500, 503]


@pytest.mark.parametrize("ask", [by_load_dict, by_backend])
@pytest.mark.parametrize("outcome", range(5))
def test_stands_in_for_a_connect_that_does_not_answer(folder, keys, answer, caplog, ask, outcome):
    """As in another task of the same worker, which is another process: nothing is kept in memory."""
    assert ask() == VALUE
    assert "does not answer" not in caplog.text
    answer(outcomes()[outcome])
    with caplog.at_level(logging.WARNING, "last_known"):
        assert ask() == VALUE
    assert "does not answer: this task uses what it gave" in caplog.text
    assert VALUE not in caplog.text


@pytest.mark.parametrize("ask", [by_load_dict, by_backend])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
def test_answer_of_connect_counts(folder, keys, answer, ask, status):
    """A token that was revoked reads nothing any more."""
    from airflow.exceptions import AirflowException

    assert ask() == VALUE
    answer(status)
    with pytest.raises(AirflowException, match=str(status)):
        ask()


@pytest.mark.parametrize("ask", [by_load_dict, by_backend])
@pytest.mark.parametrize("change", ["too old", "another token", "another vault", "no tmpfs", "nothing kept"])
def test_does_not_stand_in(folder, keys, answer, monkeypatch, caplog, ask, change):
    """The log says why: the error that follows only says that Connect does not answer."""
    from airflow.exceptions import AirflowException

    if change != "nothing kept":
        assert ask() == VALUE
    if change == "too old":
        monkeypatch.setattr("last_known.KEEP_SECONDS", -1)
    elif change == "no tmpfs":
        monkeypatch.setattr("last_known.FOLDER", folder / "absent" / "folder")
    elif change != "nothing kept":
        name = {"another token": "OP_API_TOKEN", "another vault": "OP_VAULT_ID"}[change]
        monkeypatch.setenv(name, "another")
    answer(outcomes()[0])
    with caplog.at_level(logging.WARNING, "last_known"), pytest.raises(AirflowException, match="refused"):
        ask()
    assert "gave this worker no such answer" in caplog.text
    assert VALUE not in caplog.text


def test_what_is_kept_is_for_its_user_alone_and_encrypted(folder, keys):
    assert by_load_dict() == by_backend() == VALUE
    files = list(folder.iterdir())
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert {oct(file.stat().st_mode)[-3:] for file in files} == {"600"}
    # The random part, the list of items and the two items.
    assert len(files) >= 4
    assert not any(VALUE.encode() in file.read_bytes() for file in files)
    assert not any(ITEM.encode() in file.read_bytes() for file in files)


def test_forgets_what_is_too_old(folder, keys):
    """Its memory is the container's."""
    assert by_load_dict() == VALUE
    old = {path for path in folder.iterdir() if path.name != "random"}
    assert old
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert by_backend() == VALUE
    left = {path.name for path in folder.iterdir()}
    assert "random" in left
    # What was asked for again is there, and new.
    assert all(path.stat().st_mtime > 0 for path in folder.iterdir() if path.name != "random")


def test_keeps_nothing_where_there_is_no_tmpfs(tmp_path, keys, monkeypatch):
    monkeypatch.setattr("last_known.FOLDER", tmp_path / "absent" / "folder")
    assert by_load_dict() == VALUE
    assert not (tmp_path / "absent").exists()


def test_page_of_something_else_is_not_kept(folder, site):
    import requests
    from last_known import LastKnownAdapter

    with requests.Session() as session:
        session.mount("http://", LastKnownAdapter())
        site.answers["/v1"] = (200, b'{"a": 1}')
        assert session.get(f"{site.url}/v1", timeout=10).json() == {"a": 1}
        site.answers["/v1"] = (200, b"<html>Log in to the network</html>")
        assert session.get(f"{site.url}/v1", timeout=10).text.startswith("<html>")
        site.answers["/v1"] = (503, b"")
        assert session.get(f"{site.url}/v1", timeout=10).json() == {"a": 1}
