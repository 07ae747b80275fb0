"""utils.slack_operator against a real HTTP server, with the connection stored in each way that is in use."""

import json
import logging
import socket
from types import SimpleNamespace

import pendulum
import pytest

PATH = "/services/T000/B000/abcdefgh"


@pytest.fixture
def context():
    """What Airflow hands to a callback, as far as an alert needs it."""
    return {
        "task_instance": SimpleNamespace(
            task_id="publish", dag_id="weather-checker", log_url="http://airflow/log?dag_id=a&task_id=<b>"
        ),
        "data_interval_start": pendulum.datetime(2026, 7, 1, 17, 5, tz="UTC"),
    }


@pytest.fixture
def slack(site, monkeypatch):
    """A Slack that takes messages, and the connection to it."""
    site.answers[PATH] = (200, b"ok")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK", site.url + PATH)
    return site


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("task_fail_slack_alert", ":red_circle: Task Failed."),
        ("task_fail_slack_alert_critical", "<!channel> :red_circle: Critical Failure"),
        ("task_success_slack_alert", ":white_check_mark: Task Successfully Completed."),
    ],
)
def test_alert_says_what_happened_where_and_when(slack, context, name, headline):
    import utils.slack_operator

    assert getattr(utils.slack_operator, name)(context) is True
    [(method, path, headers, body)] = slack.requests
    assert (method, path) == ("POST", PATH)
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body)["text"].splitlines() == [
        headline,
        "*Task*: publish",
        "*DAG*: weather-checker",
        "*Environment*: development",
        "*Execution Time*: 07/01/2026 12:05:00 PM",
        "*Log URL*: <http://airflow/log?dag_id=a&amp;task_id=%3Cb%3E>",
    ]


def test_callback_of_a_dag_tells_of_the_run(slack, context):
    """Airflow hands it any one of the run's tasks, and the reason."""
    from utils.slack_operator import task_fail_slack_alert

    context |= {"reason": "task_failure", "run_id": "manual__2026-07-01+00:00"}
    assert task_fail_slack_alert(context) is True
    assert json.loads(slack.requests[0][3])["text"].splitlines() == [
        ":red_circle: Run Failed.",
        "*Reason*: task_failure",
        "*DAG*: weather-checker",
        "*Environment*: development",
        "*Execution Time*: 07/01/2026 12:05:00 PM",
        "*Run URL*: <http://localhost:8080/dags/weather-checker/grid?dag_run_id=manual__2026-07-01%2B00%3A00>",
    ]


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"password": "https://hooks.slack.com/services/T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        ({"password": "T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        ({"password": "/T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        (
            {"conn_type": "http", "host": "https://hooks.slack.com/services/", "password": "/T/B/X"},
            "https://hooks.slack.com/services/T/B/X",
        ),
        (
            {"schema": "https", "host": "hooks.slack.com/services", "password": "T/B/X"},
            "https://hooks.slack.com/services/T/B/X",
        ),
        (
            {"conn_type": "slack", "host": "slack.test/services", "password": "T/B/X"},
            "https://slack.test/services/T/B/X",
        ),
        ({"uri": "https://hooks.slack.com/services/T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        ({"uri": "http://127.0.0.1:9003/services/T/B/X"}, "http://127.0.0.1:9003/services/T/B/X"),
        (
            {"uri": "slackwebhook://:T%2FB%2FX@hooks.slack.com/services"},
            "https://hooks.slack.com/services/T/B/X",
        ),
        ({"uri": "http://:T%2FB%2FX@127.0.0.1:9003/services"}, "http://127.0.0.1:9003/services/T/B/X"),
    ],
)
def test_webhook_is_found_however_the_connection_is_stored(fields, url):
    from airflow.models.connection import Connection
    from utils.slack_operator import webhook_url

    if "uri" not in fields:
        fields = {"conn_type": "slackwebhook", **fields}
    assert webhook_url(Connection(**fields)) == url


@pytest.mark.parametrize("fields", [{}, {"host": "https://hooks.slack.com"}, {"password": ""}])
def test_connection_without_a_webhook_is_named(fields):
    from airflow.models.connection import Connection
    from utils.slack_operator import webhook_url

    with pytest.raises(ValueError, match="'slack' has no webhook token"):
        webhook_url(Connection(conn_type="slackwebhook", **fields))


def test_connection_as_json_reaches_slack(slack, context, monkeypatch):
    from utils.slack_operator import task_fail_slack_alert

    stored = {"conn_type": "slackwebhook", "password": slack.url + PATH}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK", json.dumps(stored))
    assert task_fail_slack_alert(context) is True
    assert [request[1] for request in slack.requests] == [PATH]


def test_run_without_an_interval_is_reported_too(slack, context):
    from utils.slack_operator import task_fail_slack_alert

    context["data_interval_start"] = None
    assert task_fail_slack_alert(context) is True
    assert "*Execution Time*: unknown" in json.loads(slack.requests[0][3])["text"]


def test_missing_connection_is_a_line_in_the_log(database, context, caplog):
    from utils.slack_operator import task_fail_slack_alert

    with caplog.at_level(logging.WARNING, "utils.slack_operator"):
        assert task_fail_slack_alert(context) is False
    assert "there is no Airflow connection 'slack'" in caplog.text


def test_refusal_is_a_line_in_the_log_without_the_address(slack, context, caplog):
    from utils.slack_operator import task_fail_slack_alert

    slack.answers[PATH] = (403, b"invalid_token")
    with caplog.at_level(logging.WARNING, "utils.slack_operator"):
        assert task_fail_slack_alert(context) is False
    assert "status 403, invalid_token" in caplog.text
    assert PATH not in caplog.text


def test_slack_that_is_down_is_a_line_in_the_log(slack, context, caplog):
    from utils.slack_operator import task_fail_slack_alert

    slack.server_close()
    assert task_fail_slack_alert(context) is False
    assert "No Slack alert sent" in caplog.text


def test_slack_that_never_answers_is_given_up(context, caplog, monkeypatch):
    from utils.slack_operator import task_fail_slack_alert

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("utils.slack_operator.TIMEOUT_SECONDS", 0.2)
        monkeypatch.setenv("AIRFLOW_CONN_SLACK", f"http://127.0.0.1:{server.getsockname()[1]}{PATH}")
        assert task_fail_slack_alert(context) is False
    assert "No Slack alert sent" in caplog.text


def test_broken_context_does_not_raise(slack, caplog):
    from utils.slack_operator import task_fail_slack_alert

    assert task_fail_slack_alert({}) is False
    assert "No Slack alert sent" in caplog.text
