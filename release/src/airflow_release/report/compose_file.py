"""Fetches the Compose files that Airflow publishes with two of its versions, and compares them."""

from __future__ import annotations

import difflib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from airflow_release.core.errors import ReleaseError

SECONDS = 15  # for one file
SIZE_LIMIT = 2**20  # bytes; the real files have 11 KiB


def compare(template: str | None, old: str, new: str) -> dict[str, Any]:
    """Return {"addresses", "note", "diff"}: a unified diff, or a note that says why there is none.

    `template` is an address with {version} in it. Raises ReleaseError for one that is not.
    """
    if not template:
        return {"addresses": [], "note": "No address for upstream's Compose files is set.", "diff": ""}
    addresses = [address(template, version) for version in (old, new)]
    result: dict[str, Any] = {"addresses": addresses, "note": "", "diff": ""}
    if old == new:
        return result | {"note": "The version stays, and so does upstream's Compose file."}
    try:
        before, after = (fetch(each).splitlines(keepends=True) for each in addresses)
    except ReleaseError as error:
        return result | {"note": f"Not compared: {error}."}
    names = (f"{old}/docker-compose.yaml", f"{new}/docker-compose.yaml")
    lines = difflib.unified_diff(before, after, *names)
    result["diff"] = "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
    if not result["diff"]:
        result["note"] = "The two files are the same."
    return result


def address(template: str, version: str) -> str:
    """Return the address of one version's file. Raises ReleaseError for a template that cannot give one."""
    parts = urllib.parse.urlsplit(template)
    if parts.scheme not in ("http", "https") or not parts.hostname or "{version}" not in template:
        raise ReleaseError(f"{template!r} is not an address with {{version}} in it, as http or https")
    return template.replace("{version}", urllib.parse.quote(version, safe=""))


def fetch(url: str) -> str:
    """Return a text from the web, by the proxies and certificate authorities of the environment.

    Raises ReleaseError.
    """
    try:
        # `address` lets nothing but http and https pass.
        with urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310
            content: bytes = response.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise ReleaseError(f"{url} has more than {SIZE_LIMIT} bytes")
        return content.decode("utf-8")
    except urllib.error.HTTPError as error:
        error.close()
        raise ReleaseError(f"{url} answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ReleaseError(f"{url} cannot be reached ({error.reason})") from error
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise ReleaseError(f"{url} cannot be read ({type(error).__name__}: {error})") from error
