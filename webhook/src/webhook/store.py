"""What the webhook must not forget when it restarts: used keys and nonces, jobs, when the relay was last
heard.

One SQLite file. A connection per call: SQLite's own locking then covers threads and processes alike. A disk
that is full, or a file that somebody locks, stops no call but one whose credential has to be noted first:
jobs and facts stay in memory until they can be written.
"""

import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

JOBS_KEPT = 200
# A caller waits for it. Threads of this process take turns, so this is for others, such as a copy being made.
LOCKED_SECONDS = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (digest TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
"""


class StoreError(Exception):
    """The file cannot be read or written now."""


class Store:
    """The file and the few questions that are asked of it. Times are seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        """Create the file, readable by its owner only, where there is none; if not now, then when it can."""
        self._path = path
        self._writing = threading.Lock()
        self._prepared = False
        # What is not in the file yet.
        self._jobs: dict[str, dict[str, Any]] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self.trouble: str | None = None  # why the file could not be read or written, until it can be written
        self._write_waiting()

    def is_used(self, digest: str) -> bool:
        """Say whether a key or nonce was used before.

        Raises:
            StoreError
        """
        with self._connection() as connection:
            return connection.execute("SELECT 1 FROM used WHERE digest = ?", (digest,)).fetchone() is not None

    def use(self, digest: str, expires_at: float, now: float) -> bool:
        """Mark a key or nonce as used; False when somebody was faster. What has expired is forgotten.

        Raises:
            StoreError: it is not marked.
        """
        with self._writing, self._connection() as connection:
            connection.execute("DELETE FROM used WHERE expires_at < ?", (now,))
            done = connection.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (digest, expires_at))
            return done.rowcount == 1

    def save_job(self, identifier: str, content: dict[str, Any]) -> None:
        """Create or replace a job, now or as soon as that is possible; the oldest beyond JOBS_KEPT go."""
        self._jobs[identifier] = content
        self._write_waiting()

    def job(self, identifier: str) -> dict[str, Any] | None:
        """Return a job, or None.

        Raises:
            StoreError: it may be in the file, which cannot be read.
        """
        if (waiting := self._jobs.get(identifier)) is not None:
            return waiting
        with self._connection() as connection:
            row = connection.execute("SELECT content FROM jobs WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that are remembered, the oldest first.

        Raises:
            StoreError
        """
        waiting = dict(self._jobs)
        with self._connection() as connection:
            rows = connection.execute("SELECT id, content FROM jobs ORDER BY number").fetchall()
        return list(({identifier: json.loads(content) for identifier, content in rows} | waiting).values())

    def remember(self, name: str, content: dict[str, Any]) -> None:
        """Replace a fact, now or as soon as that is possible."""
        self._facts[name] = content
        self._write_waiting()

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return a fact, or None; also None while the file cannot be read."""
        if (waiting := self._facts.get(name)) is not None:
            return dict(waiting)
        with contextlib.suppress(StoreError), self._connection() as connection:
            row = connection.execute("SELECT content FROM facts WHERE name = ?", (name,)).fetchone()
            return None if row is None else dict(json.loads(row[0]))
        return None

    def _write_waiting(self) -> None:
        """Write all that is not in the file yet; what cannot be written waits for the next time."""
        with self._writing:
            jobs, facts = dict(self._jobs), dict(self._facts)
            try:
                with self._connection() as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    for identifier, content in jobs.items():
                        connection.execute(
                            "INSERT INTO jobs (id, content) VALUES (?, ?) "
                            "ON CONFLICT (id) DO UPDATE SET content = excluded.content",
                            (identifier, json.dumps(content)),
                        )
                    connection.execute(
                        "DELETE FROM jobs WHERE number <= (SELECT MAX(number) FROM jobs) - ?", (JOBS_KEPT,)
                    )
                    for name, content in facts.items():
                        connection.execute(
                            "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(content))
                        )
                    connection.execute("COMMIT")
            except StoreError:
                for identifier in list(self._jobs)[:-JOBS_KEPT]:
                    self._jobs.pop(identifier, None)
                return
            self.trouble = None
            # What was replaced meanwhile is still to be written.
            for identifier, content in jobs.items():
                if self._jobs.get(identifier) is content:
                    del self._jobs[identifier]
            for name, content in facts.items():
                if self._facts.get(name) is content:
                    del self._facts[name]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._prepared:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch(mode=0o600)
            connection = sqlite3.connect(self._path, timeout=LOCKED_SECONDS, isolation_level=None)
            try:
                if not self._prepared:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.executescript(_SCHEMA)
                    self._prepared = True
                yield connection
            finally:
                # Rolls back what was not committed.
                connection.close()
        except (sqlite3.Error, OSError) as error:
            self._prepared = False  # it may be another file by the next time
            if self.trouble is None:
                log.error("%s cannot be read or written: %s", self._path, error)
            self.trouble = f"{self._path} cannot be read or written: {error}"
            raise StoreError(self.trouble) from error
