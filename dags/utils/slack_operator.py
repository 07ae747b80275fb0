"""Alerts in Slack, for a DAG's or a task's `on_failure_callback` and `on_success_callback`.

They post through the Airflow connection `slack`; `slack_message` gives them their form. An alert that cannot
be sent is a line in the log and no more: it neither fails the task nor hides why the task failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf
from airflow.exceptions import AirflowNotFoundException
from airflow.hooks.base import BaseHook
from airflow.models.connection import Connection
from airflow.utils.log.secrets_masker import mask_secret
from pendulum import instance
from slack_sdk.webhook import WebhookClient

from utils.slack_message import slack_message

log = logging.getLogger(__name__)

SLACK_CONN_ID = "slack"
DEFAULT_ADDRESS = "https://hooks.slack.com/services"
TIMEOUT_SECONDS = 10
TIME_ZONE = "America/Chicago"


def task_fail_slack_alert(context: Mapping[str, Any]) -> bool:
    """Say that a task, or a DAG's run, failed. Return whether Slack took the message."""
    return _post(context, ":red_circle: Task Failed.")


def task_fail_slack_alert_critical(context: Mapping[str, Any]) -> bool:
    """Say that a task, or a DAG's run, failed, and notify the channel. Return whether Slack took it."""
    return _post(context, ":red_circle: Critical Failure", notify_channel=True)


def task_success_slack_alert(context: Mapping[str, Any]) -> bool:
    """Say that a task, or a DAG's run, succeeded. Return whether Slack took the message."""
    return _post(context, ":white_check_mark: Task Successfully Completed.")


def webhook_url(connection: Connection) -> str:
    """Return the address of the incoming webhook that `connection` stands for.

    The connection may be of any of the types that have been in use: the password holds the whole address, or
    it holds the path `T…/B…/…` and the host holds the part before it (with or without `https://`; by default
    Slack's own), or an URI such as `https://hooks.slack.com/services/T…/B…/…` holds everything.
    Raises ValueError when the connection holds no path to a webhook.
    """
    token = (connection.password or "").strip()
    if token.startswith(("https://", "http://")):
        return token
    host, schema = (connection.host or "").strip().rstrip("/"), (connection.schema or "").strip("/")
    # In an URI the scheme becomes the connection's type and the path its "schema"; in the UI's form the
    # schema is http or https.
    path = [part for part in (schema if schema not in ("http", "https") else "", token.lstrip("/")) if part]
    if host and "://" not in host:
        scheme = next((name for name in (schema, connection.conn_type) if name in ("http", "https")), "https")
        host = f"{scheme}://{host}:{connection.port}" if connection.port else f"{scheme}://{host}"
    if not path:
        raise ValueError(f"the connection {SLACK_CONN_ID!r} has no webhook token in its password")
    return "/".join([host or DEFAULT_ADDRESS, *path])


def _post(context: Mapping[str, Any], headline: str, notify_channel: bool = False) -> bool:
    try:
        url = webhook_url(BaseHook.get_connection(SLACK_CONN_ID))
        mask_secret(url)
        client = WebhookClient(url, timeout=TIMEOUT_SECONDS)
        response = client.send_dict({**_message(context, headline, notify_channel), "username": "airflow"})
    except AirflowNotFoundException:
        log.warning("No Slack alert sent: there is no Airflow connection %r", SLACK_CONN_ID)
        return False
    except Exception:
        # Whatever it is: a callback that raises would bury the failure it reports under one of its own.
        log.exception("No Slack alert sent")
        return False
    if response.status_code != 200:
        log.error("Slack refused the alert: status %s, %s", response.status_code, response.body)
        return False
    return True


def _message(context: Mapping[str, Any], headline: str, notify_channel: bool) -> dict[str, Any]:
    task_instance = context["task_instance"]
    started = context.get("data_interval_start") or context.get("logical_date")
    time = instance(started).in_timezone(TIME_ZONE).format("MM/DD/YYYY hh:mm:ss A") if started else "unknown"
    common = {
        "DAG": task_instance.dag_id,
        "Environment": os.environ.get("ENVIRONMENT", "development"),
        "Execution Time": time,
    }
    # Airflow calls a DAG's own callback with a reason, and with any one of the run's tasks.
    if "reason" in context:
        page = f"{conf.get('webserver', 'base_url')}/dags/{quote(task_instance.dag_id)}/grid"
        links = {"Run URL": f"{page}?dag_run_id={quote(context['run_id'])}"}
        headline, facts = headline.replace("Task", "Run"), {"Reason": context["reason"], **common}
    else:
        links = {"Log URL": task_instance.log_url}
        facts = {"Task": task_instance.task_id, **common}
    return slack_message(headline, facts, links, notify_channel=notify_channel)
