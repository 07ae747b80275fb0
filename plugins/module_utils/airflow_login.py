"""Logs in to Airflow's pages through the form, as a person does; shared by the modules that ask Airflow.

The session that begins so is also what Airflow's REST API takes, without basic authentication.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit

from ansible.module_utils.urls import open_url

Answer = TypeVar("Answer")

PAUSE = 0.5
"""Seconds between two questions; Airflow's API cannot tell when something has happened."""
TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


class LoginError(Exception):
    """Airflow does not let this user in."""


def nobody_took_it(error: URLError) -> bool:
    """Say whether Airflow did nothing: HAProxy answered or did not run, or a login came too soon."""
    if isinstance(error, HTTPError):
        return error.code in (429, 503)
    return isinstance(error.reason, ConnectionRefusedError)


def until_taken(request: Callable[[], Answer], seconds: float) -> Answer:
    """Return what a request returns, which is sent again for so long while nobody takes it.

    Raises:
        OSError: it was refused (`HTTPError`) or there was no answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return request()
        except URLError as error:
            if not nobody_took_it(error) or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def log_in(url: str, username: str, password: str) -> CookieJar:
    """Return the cookies of a new session.

    Raises:
        LoginError: name and password are not those of an active account.
        OSError: there was no answer, or an error (`HTTPError`): 429 if somebody has tried too often.
    """
    cookies, address = CookieJar(), f"{url}/login/"
    with open_url(address, cookies=cookies, timeout=60) as page:
        token = TOKEN.search(page.read().decode("utf-8", "replace"))
    fields = {"username": username, "password": password, "csrf_token": token[1] if token else ""}
    try:
        open_url(
            address,
            method="POST",
            data=urlencode(fields),
            # Over TLS Airflow takes no form that does not say where it is from.
            headers={"Referer": address},
            cookies=cookies,
            follow_redirects="none",
            timeout=60,
        ).close()
    except HTTPError as answer:
        if answer.code not in (302, 303):
            raise
        # Back to the form, or on to the pages.
        if urlsplit(answer.headers["Location"]).path.rstrip("/").endswith("/login"):
            raise LoginError(f"{url} does not let {username} in") from answer
        return cookies
    raise LoginError(f"{url} does not let {username} in")
