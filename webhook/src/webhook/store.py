"""What the webhook must not forget when it restarts: used keys and nonces, jobs, when the relay was last
heard.

One SQLite file. A connection per call: SQLite's own locking then covers threads and processes alike.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOBS_KEPT = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (digest TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """The file and the few questions that are asked of it. Times are seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        """Create the file, readable by its owner only, where there is none."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    def is_used(self, digest: str) -> bool:
        """Say whether a key or nonce was used before."""
        with self._connection() as connection:
            return connection.execute("SELECT 1 FROM used WHERE digest = ?", (digest,)).fetchone() is not None

    def use(self, digest: str, expires_at: float, now: float) -> bool:
        """Mark a key or nonce as used; False when somebody was faster. What has expired is forgotten."""
        with self._connection() as connection:
            connection.execute("DELETE FROM used WHERE expires_at < ?", (now,))
            done = connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (digest, expires_at))
            return done.rowcount == 1

    def save_job(self, identifier: str, content: dict[str, Any]) -> None:
        """Create or replace a job; the oldest beyond JOBS_KEPT are dropped."""
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO jobs (id, content) VALUES (?, ?) "
                "ON CONFLICT (id) DO UPDATE SET content = excluded.content",
                (identifier, json.dumps(content)),
            )
            connection.execute(
                "DELETE FROM jobs WHERE number <= (SELECT MAX(number) FROM jobs) - ?", (JOBS_KEPT,)
            )

    def job(self, identifier: str) -> dict[str, Any] | None:
        """Return a job, or None."""
        with self._connection() as connection:
            row = connection.execute("SELECT content FROM jobs WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that are remembered, the oldest first."""
        with self._connection() as connection:
            rows = connection.execute("SELECT content FROM jobs ORDER BY number").fetchall()
        return [json.loads(row[0]) for row in rows]

    def remember(self, name: str, content: dict[str, Any]) -> None:
        """Replace a fact."""
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(content)))

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return a fact, or None."""
        with self._connection() as connection:
            row = connection.execute("SELECT content FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))
