"""The playbooks that change this host and are no operation: each notes itself down in a file while it runs.

A playbook writes its note and then reads the journal; `begin` writes the journal and then reads the notes. So
of two that begin at once, at least one sees the other.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_release.core.errors import ReleaseError
from airflow_release.core.host import Host


def require_none(host: Host, control: Mapping[str, Any]) -> None:
    """Refuse to begin beside a playbook, unless it is of the same process, such as the site.yml of a restore.

    Raises:
        ReleaseError: with the playbook's name, since when it runs and what to do.
    """
    for path, note in _notes(host):
        if note["control"] == dict(control):
            continue
        process = f"process {note['control'].get('pid', '?')} on {note['control'].get('host', '?')}"
        raise ReleaseError(
            f"Nothing was begun. The playbook '{note['playbook']}' changes this host since {note['since']} "
            f"({process}). Wait until it has ended. If it was killed: rm {path}"
        )


def _notes(host: Host) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the notes that count, and remove those that are older than they say that they count.

    A power cut may leave an empty one; of that playbook nothing runs any more.
    """
    for path in sorted(host.releases.glob("playbook-*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            note = json.loads(path.read_text())
            # By this host's clock alone; one that was set back makes no note count for longer.
            if abs(time.time() - path.stat().st_mtime) > float(note["counts_for"]):
                path.unlink()
            elif note["playbook"] and note["since"] and isinstance(note["control"], dict):
                yield path, note
