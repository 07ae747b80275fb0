"""utils.onepassword against a server that speaks Connect's protocol."""

import logging

import pytest

WEATHER = "Diagnostic ETL (Weather)"


def ask(path, item=WEATHER, **place):
    from utils.onepassword import load_dict

    return load_dict({"NAME": {"opitem": item, "opfield": path, **place}})["NAME"]


@pytest.fixture
def keys(connect):
    """An item with every kind of field that the team's items have."""
    connect.add(
        "Keys",
        [
            ("production", "apiKey", "production key"),
            ("development", "apiKey", "development key"),
            ("production", "v2.endpoint", "https://example.org"),
            (None, "App Token", "plain token"),
            (None, "apiKey", "key of nobody"),
            ("development", "empty", None),
        ],
    )
    return connect


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("production.apiKey", "production key"),
        ("development.apiKey", "development key"),
        ("section1.apiKey", "development key"),
        ("production.v2.endpoint", "https://example.org"),
        (".App Token", "plain token"),
        ("App Token", "plain token"),
        (".apiKey", "key of nobody"),
        ("production.App Token", "plain token"),
        ("staging.apiKey", "key of nobody"),
        ("development.empty", None),
    ],
)
def test_load_dict_finds_the_field(keys, path, value):
    assert ask(path, "Keys") == value


def test_load_dict_takes_each_environments_own_secret(connect):
    from sandbox.seed import phrase

    assert ask("production.demonstration secret") == phrase("production")
    assert ask("development.demonstration secret") == phrase("development")
    assert phrase("production") != phrase("development")


def test_load_dict_fetches_each_item_once_and_leaves_its_argument_alone(site, monkeypatch):
    from utils.onepassword import load_dict

    vault, item = "v" * 26, "i" * 26
    summary = f'{{"id": "{item}", "title": "Keys", "vault": {{"id": "{vault}"}}}}'
    listing = f"/v1/vaults/{vault}/items"
    site.answers[listing] = (200, f"[{summary}]".encode())
    fields = '[{"id": "a", "label": "a", "value": "one"}, {"id": "b", "label": "b", "value": "two"}]'
    site.answers[f"/v1/vaults/{vault}/items/{item}"] = (200, f'{summary[:-1]}, "fields": {fields}}}'.encode())
    monkeypatch.setenv("OP_CONNECT", site.url + "/")
    monkeypatch.setenv("OP_API_TOKEN", "another made-up token")
    monkeypatch.setenv("OP_VAULT_ID", vault)
    wanted = {name: {"opitem": "Keys", "opfield": f".{name}"} for name in "ab"}
    assert load_dict(wanted) == {"a": "one", "b": "two"}
    assert [request[1] for request in site.requests] == [listing, f"/v1/vaults/{vault}/items/{item}"]
    assert wanted == {name: {"opitem": "Keys", "opfield": f".{name}"} for name in "ab"}


def test_load_dict_takes_another_vault(connect):
    from utils.onepassword import OnePasswordError

    with pytest.raises(OnePasswordError, match="in vault outofscopevault00000000000"):
        ask("development.demonstration secret", opvault="outofscopevault00000000000")


@pytest.mark.parametrize(
    ("item", "path", "words"),
    [
        (WEATHER, "development.absent", ["field 'development.absent'", WEATHER]),
        (WEATHER, "absent.demonstration secret", ["field 'absent.demonstration secret'", WEATHER]),
        ("Absent item", "a.b", ["'Absent item'", "Found 0 items"]),
    ],
)
def test_errors_name_vault_item_and_field_and_no_value(connect, item, path, words):
    from utils.onepassword import OnePasswordError

    from sandbox.seed import phrase

    with pytest.raises(OnePasswordError) as caught:
        ask(path, item)
    message = str(caught.value)
    assert connect.vault_id in message
    for word in words:
        assert word in message
    for secret in (phrase("production"), phrase("development"), connect.token):
        assert secret not in message


def test_two_items_of_the_same_title_are_an_error(connect):
    from utils.onepassword import OnePasswordError, get_item_by_title

    connect.add("Twice", [(None, "a", "one")])
    connect.add("Twice", [(None, "a", "two")])
    with pytest.raises(OnePasswordError, match="Found 2 items"):
        get_item_by_title("Twice")


TITLES = [
    "R&D feed",
    'The "new" one',
    "back\\slash",
    'a \\" and \\\\ b',
    "100% of it, not 100%25",
    "A + B = C; #1?",
    "Größe/鍵 🔑",
    "a" * 26,
    " spaces around ",
]


@pytest.mark.parametrize("title", TITLES)
def test_any_title_is_found(connect, title):
    from utils.onepassword import get_item_by_title

    connect.add(title, [(None, "key", "found")])
    connect.add(f"{title}x", [(None, "key", "another")])
    assert ask("key", title) == "found"
    assert get_item_by_title(title).title == title


def test_place_without_a_field_is_an_error(connect):
    from utils.onepassword import OnePasswordError, load_dict

    with pytest.raises(OnePasswordError, match="SECRET is asked for without opfield"):
        load_dict({"SECRET": {"opitem": WEATHER}})


def test_wrong_token_is_refused_and_not_shown(connect, monkeypatch):
    from utils.onepassword import OnePasswordError, get_item_by_title

    monkeypatch.setenv("OP_API_TOKEN", "wrong token")
    with pytest.raises(OnePasswordError, match="401") as caught:
        get_item_by_title(WEATHER)
    assert "wrong token" not in str(caught.value)


@pytest.mark.parametrize("name", ["OP_CONNECT", "OP_API_TOKEN", "OP_VAULT_ID"])
def test_missing_setting_is_named(connect, monkeypatch, name):
    from utils.onepassword import OnePasswordError

    monkeypatch.delenv(name)
    with pytest.raises(OnePasswordError, match=f"^{name} is not set"):
        ask("development.demonstration secret")


@pytest.mark.parametrize("status", [200, 403])
def test_answer_that_is_no_json_is_an_error_that_names_the_item(site, monkeypatch, status):
    from utils.onepassword import OnePasswordError, get_item_by_title

    site.answers["/v1/vaults/v/items"] = (status, b"<html>Forbidden by proxy</html>")
    monkeypatch.setenv("OP_CONNECT", site.url)
    monkeypatch.setenv("OP_API_TOKEN", "another made-up token")
    monkeypatch.setenv("OP_VAULT_ID", "v")
    with pytest.raises(OnePasswordError, match="did not give item 'Keys' in vault v"):
        get_item_by_title("Keys")


def test_connect_that_is_down_is_an_error_that_names_the_item(site, monkeypatch):
    from utils.onepassword import OnePasswordError, get_item_by_title

    site.server_close()
    monkeypatch.setattr("utils.onepassword.RETRIES", 0)
    monkeypatch.setenv("OP_CONNECT", site.url)
    monkeypatch.setenv("OP_API_TOKEN", "another made-up token")
    monkeypatch.setenv("OP_VAULT_ID", "v")
    with pytest.raises(OnePasswordError, match="item 'Keys' in vault v: ConnectionError"):
        get_item_by_title("Keys")


def test_busy_connect_is_asked_again(connect, site, monkeypatch):
    """The first answer is 429, the next is the real one."""
    from utils.onepassword import RETRIES, get_item_by_title

    handler = site.RequestHandlerClass
    real_answer = handler.answer

    def answer(self):
        if len(self.server.requests) == 0:
            self.server.answers[self.path] = (429, b'{"message": "busy"}')
        else:
            self.server.answers[self.path] = (404, b'{"message": "not found after all"}')
        real_answer(self)

    monkeypatch.setattr(handler, "do_GET", answer)
    monkeypatch.setattr("utils.onepassword.RETRIES", RETRIES.new(backoff_factor=0))
    monkeypatch.setenv("OP_CONNECT", site.url)
    with pytest.raises(Exception, match="not found after all"):
        get_item_by_title(WEATHER)
    assert len(site.requests) == 2


def test_server_that_never_answers_is_given_up(monkeypatch):
    import socket

    from utils.onepassword import OnePasswordError, get_item_by_title

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("utils.onepassword.RETRIES", 0)
        monkeypatch.setattr("utils.onepassword.TIMEOUT_SECONDS", 0.2)
        monkeypatch.setenv("OP_CONNECT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("OP_API_TOKEN", "another made-up token")
        monkeypatch.setenv("OP_VAULT_ID", "v")
        with pytest.raises(OnePasswordError, match="ReadTimeout"):
            get_item_by_title("Keys")


def test_values_are_masked_in_logs_from_then_on(keys, caplog):
    from airflow.utils.log.secrets_masker import SecretsMasker, _secrets_masker

    ask("production.apiKey", "Keys")
    masker = _secrets_masker()
    assert isinstance(masker, SecretsMasker)
    assert (
        masker.redact("it is production key and the token is " + keys.token)
        == "it is *** and the token is ***"
    )
    assert "production key" not in caplog.text


def test_empty_field_is_reported_by_name(keys, caplog):
    with caplog.at_level(logging.WARNING, "utils.onepassword"):
        assert ask("development.empty", "Keys") is None
    assert "NAME: field 'development.empty' of item 'Keys' in vault" in caplog.text


def test_tasks_keep_their_names_and_their_logs_clean(connect):
    from utils.onepassword import get_env_vars_task, get_item_last_update_date

    secrets = get_env_vars_task({"NAME": {"opitem": WEATHER, "opfield": "development.demonstration secret"}})
    assert secrets.operator.task_id == "get_env_vars"
    assert secrets.operator.show_return_value_in_logs is False
    assert get_item_last_update_date(WEATHER).operator.task_id == "get_item_last_update_date"
