"""Tells the outside how a sync ended: the commit status `airflow/live` on GitHub, and Slack when a commit is
refused.

Both are told once per outcome. What could not be told is told after the next sync, and never keeps a commit
from going live.
"""

import logging
import re
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from webhook.settings import Settings
from webhook.slack_message import slack_message
from webhook.state import Refusal, State

log = logging.getLogger(__name__)

CONTEXT = "airflow/live"
DESCRIPTION_LIMIT = 140  # characters, by GitHub's API


class Reporter:
    """Sends what changed since the last report; the state file remembers what that was."""

    def __init__(self, settings: Settings) -> None:
        """Send nothing yet."""
        self._settings = settings

    def report(self, state: State, outcome: str, commit: str | None, detail: str) -> None:
        """Report the branch's head to GitHub and a refusal to Slack, as far as these are configured."""
        self._report_status(state, outcome, commit, detail)
        refusal = state.refusal_of(commit) if commit and outcome == "refused" else None
        if refusal is not None:
            self._notify(state, refusal)

    def _report_status(self, state: State, outcome: str, commit: str | None, detail: str) -> None:
        settings = self._settings
        if not settings.github_token or not settings.github_repository or state.head is None:
            return
        head = state.head.id
        if state.live is not None and state.live.id == head:
            status, description = "success", f"live on {settings.environment}"
        elif state.pin is not None:
            status, description = "pending", f"not live: the host is pinned to {state.pin[:12]}"
        elif outcome == "refused" and commit == head:
            status, description = "failure", detail
        else:
            status, description = "error", detail
        told = _constant(description) if description is detail else description
        report = f"{head} {status} {told}"
        if report == state.reported:
            return
        body: dict[str, Any] = {
            "state": status,
            "context": CONTEXT,
            "description": _cut(description, DESCRIPTION_LIMIT),
        }
        if settings.status_page_url:
            body["target_url"] = settings.status_page_url
        headers = {
            "Authorization": f"Bearer {settings.github_token}",
            "Accept": "application/vnd.github+json",
        }
        url = f"{settings.github_api}/repos/{settings.github_repository}/statuses/{head}"
        if _post("GitHub", url, body, headers):
            state.reported = report

    def _notify(self, state: State, refusal: Refusal) -> None:
        if not self._settings.slack_webhook_url:
            return
        reasons = [str(reason) for reason in refusal.reasons]
        notification = "\n".join([refusal.commit.id, *map(_constant, reasons)])
        if notification == state.notified:
            return
        facts = {
            "Commit": refusal.commit.id[:12],
            "Author": refusal.commit.author,
            "Subject": refusal.commit.subject,
            "Environment": self._settings.environment,
            "Stays live": state.live.id[:12] if state.live else "nothing",
        }
        page = self._settings.status_page_url
        message = slack_message(
            ":no_entry: Commit Refused.", facts, {"Status page": page} if page else None, reasons
        )
        if _post("Slack", self._settings.slack_webhook_url, message, {}):
            state.notified = notification


def _post(name: str, url: str, body: dict[str, Any], headers: dict[str, str]) -> bool:
    """Post with a few tries; say whether it was taken. The address may be a secret, so it is not logged."""
    retrying = Retrying(
        retry=retry_if_exception_type(httpx.TransportError),
        stop=stop_after_attempt(3),
        wait=wait_exponential(multiplier=0.5, max=2),
        reraise=True,
    )
    try:
        response = retrying(httpx.post, url, json=body, headers=headers, timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("%s could not be told: %s", name, type(error).__name__)
        return False
    if response.is_error:
        log.warning("%s did not take the report: HTTP %s", name, response.status_code)
        return False
    return True


def _constant(reason: str) -> str:
    """Return what is the same at every sync: addresses of objects, process ids and times are not."""
    return re.sub(r"\b0x[0-9a-fA-F]+|[0-9]+(?:\.[0-9]+)?", "#", reason)


def _cut(text: str, limit: int) -> str:
    """Return one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
