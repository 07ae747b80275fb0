"""A host whose Postgres is a real server of this machine, reached through a stand-in for Docker's command."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_release.core.database import LIVE, SCRATCH, Database
from airflow_release.core.host import Host

from tests.missing import missing

SOURCE = Path(__file__).resolve().parents[2] / "release/src"
FERNET_KEY = "W5vVd8hVvQ2QxYbS0o0m3lq1JkW1oX9o5cX6S0pJb1k="
IMAGE = "airflow-platform/airflow:2.6.1-ab"
REVISION = "405de8318b3a"
"""The schema of Airflow 2.6.1."""

SCHEMA = f"""
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('{REVISION}');
CREATE TABLE dag (dag_id varchar(250) PRIMARY KEY, is_paused boolean);
CREATE TABLE dag_run (id serial PRIMARY KEY, dag_id varchar(250), start_date timestamptz, conf bytea);
CREATE TABLE variable (id serial PRIMARY KEY, key varchar(250) UNIQUE, val text, is_encrypted boolean);
CREATE TABLE log (id serial PRIMARY KEY, extra text);
INSERT INTO dag VALUES ('one', false), ('two', true);
INSERT INTO dag_run (dag_id, start_date)
  SELECT 'one', timestamptz '2026-01-01 00:00+00' + n * interval '1 hour' FROM generate_series(1, 500) n;
INSERT INTO variable (key, val, is_encrypted) VALUES ('tab', E'a\\tb\\\\connect other\\n\\\\.', false);
INSERT INTO log (extra) SELECT repeat(md5(n::text), 20) FROM generate_series(1, 2000) n;
"""
"""A small part of Airflow's schema, with what is awkward in a dump."""


DOCKER = """#!{python}
import os, sys
given = sys.argv[1:]
if given[:2] == ["compose", "--project-directory"] and given[3:6] == ["exec", "--no-TTY", "postgres"]:
    os.environ.update(PGHOST="{server}", PATH="{programs}:" + os.environ["PATH"])
    os.execvp(given[6], given[6:])
elif given[:2] == ["volume", "inspect"]:
    print("{server}")
elif given[:2] == ["image", "ls"]:
    print("sha256:" + "ab" * 32)
elif given[:1] == ["run"]:
    print("9fe40ae9b6f0 {revision}")
else:
    sys.exit(f"unexpected: {{given}}")
"""


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process or one that it starts grow beyond a size, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _programs() -> Path | None:
    """Return the directory of the newest Postgres here; Debian has the server's programs on nobody's path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def server() -> Iterator[Path]:
    """A running Postgres with the superuser `airflow`, as in the platform's container: its socket's place."""
    programs = _programs()
    if programs is None:
        missing("no PostgreSQL server here: run bin/setup --database")
    # A socket's path has to be short, and pytest's own directories are for this user alone.
    directory = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(directory, user)
    data = directory / "data"

    def run(*command: str) -> None:
        subprocess.run(
            command, user=user, group=user, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=180
        )

    run(f"{programs}/initdb", f"--pgdata={data}", "--username=airflow", "--auth=trust", "--encoding=UTF8")
    options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
    control = (f"{programs}/pg_ctl", f"--pgdata={data}", "--wait")
    run(*control, f"--log={directory}/log", f"--options={options}", "start")
    try:
        yield directory
    finally:
        run(*control, "--mode=immediate", "stop")
        shutil.rmtree(directory)


@pytest.fixture
def docker(server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program `docker` first on the path: it runs in the server's place what would run in the container."""
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text(
        DOCKER.format(python=sys.executable, server=server, programs=_programs(), revision=REVISION)
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


@pytest.fixture
def host(tmp_path: Path, docker: Path) -> Iterator[Host]:
    """A host with the platform's files and a live database."""
    host = Host(directory=tmp_path / "srv", backups=tmp_path / "backups")
    files = {
        ".env": f"AIRFLOW_VERSION=2.6.1\nENVIRONMENT=production\nAIRFLOW_IMAGE={IMAGE}\n",
        "docker-compose.yaml": "name: airflow\n",
        "haproxy/haproxy.cfg": "defaults\n",
        "haproxy/certificate.pem": "the-certificate's-key",
        "weather/nginx.conf": "events {}\n",
        "docker-socket-proxy/policy.json": "{}\n",
        "env/airflow.env": f"AIRFLOW__CORE__FERNET_KEY={FERNET_KEY}\n",
    }
    for name, text in files.items():
        file = host.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (host.directory / "trees").mkdir()
    (host.directory / "trees/current").symlink_to("0123456789abcdef0123456789abcdef01234567")
    database = Database(host)
    with contextlib.ExitStack() as stack:
        for name in sorted(database.names() - {"postgres", "template0", "template1"}):
            database.sql(f"DROP DATABASE {name} WITH (FORCE)", "postgres")
        database.create("fresh")
        database.rename(("fresh", LIVE))
        database.sql(SCHEMA)
        stack.callback(database.drop, SCRATCH)
        yield host


@pytest.fixture
def database(host: Host) -> Database:
    """The live database's server."""
    return Database(host)
