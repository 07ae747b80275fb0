"""What is read from outside: every form of it is understood, and nonsense is an error of the right kind."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import io
import json
import re
import string
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from airflow_checker import report
from airflow_checker.facts import Told, Unit, WorkerHost
from airflow_checker.gather import certificate, connect, database, docker, host, redis, webhook
from airflow_checker.judge import minutes
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.missing import missing


def encoded(claims: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


@given(st.integers(0, 10**11), st.text(string.ascii_letters, max_size=9))
def test_end_of_a_token_is_read(at: int, name: str) -> None:
    assert connect.token_ends(f"{encoded({'alg': 'ES256'})}.{encoded({'sub': name, 'exp': at})}.AA") == at


@pytest.mark.parametrize("claims", [{}, {"exp": None}, {"exp": "1"}, {"exp": True}, [], 3, {"exp": 1e300}])
def test_token_without_an_end(claims: object) -> None:
    assert connect.token_ends(f"{encoded({})}.{encoded(claims)}.AA") is None


@given(st.text(max_size=80))
def test_what_is_no_token_has_no_end(text: str) -> None:
    assert connect.token_ends(text) is None or text.count(".") == 2


@given(st.binary(max_size=60))
def test_damaged_token_has_no_end(data: bytes) -> None:
    connect.token_ends(f"a.{base64.urlsafe_b64encode(data).decode()}.b")


@given(st.text(max_size=60))
def test_date_of_any_form_is_no_error(text: str) -> None:
    connect.offset(text, 0)


def test_clock_of_an_answer() -> None:
    assert connect.offset("Thu, 01 Jan 1970 00:01:00 GMT", 0) == 60
    assert connect.offset(None, 0) is None


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(-(10**9), 10**9))
def test_reply_of_redis_is_read(words: list[bytes], number: int) -> None:
    data = b"*%d\r\n" % (len(words) + 2) + b":%d\r\n$-1\r\n" % number
    data += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    assert redis.reply(io.BytesIO(data)) == [number, None, *words]


@given(st.binary(max_size=60))
def test_nonsense_of_redis_is_one_kind_of_error(data: bytes) -> None:
    with contextlib.suppress(redis.RedisError):
        redis.reply(io.BytesIO(data))


def test_error_of_redis_is_said() -> None:
    with pytest.raises(redis.RedisError, match="NOAUTH"):
        redis.reply(io.BytesIO(b"-NOAUTH Authentication required.\r\n"))


def test_command_to_redis_keeps_every_byte() -> None:
    password = "a b\r\n'ü"
    words = redis.reply(io.BytesIO(redis.command(["AUTH", password])))
    assert words == [b"AUTH", password.encode()]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=6))
def test_output_of_a_command_is_taken_apart(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(bytes([stream, 0, 0, 0]) + len(part).to_bytes(4, "big") + part for stream, part in parts)
    assert list(docker.frames(data)) == parts


@given(st.binary(max_size=60))
def test_any_output_comes_to_an_end(data: bytes) -> None:
    list(docker.frames(data))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00.123456789Z", 1767225600),
        ("2026-01-01T00:00:00Z", 1767225600),
        ("2026-01-01T01:00:00.5+01:00", 1767225600),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
    ],
)
def test_time_of_docker(text: str, expected: float) -> None:
    assert docker.seconds(text) == expected


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate of 30 days with its key, as HAProxy has it."""
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=a -keyout key -out cert"
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        missing("there is no openssl on this machine")
    return (folder / "cert").read_text() + (folder / "key").read_text()


def test_end_of_a_certificate_is_read(pem: str) -> None:
    assert certificate.ends(pem) == pytest.approx(time.time() + 30 * 86_400, abs=3600)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_certificate_is_one_kind_of_error(pem: str, data: st.DataObject) -> None:
    text = re.search(r"-----BEGIN CERTIFICATE-----(.+?)-----END", pem, re.DOTALL)
    assert text
    der = bytearray(base64.b64decode("".join(text[1].split())))
    der[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    body = base64.b64encode(bytes(der[: data.draw(st.integers(0, len(der)))])).decode()
    with contextlib.suppress(ValueError):
        certificate.ends(f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----")


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (certificate.UTC_TIME, "260101000000Z", "2026-01-01T00:00:00Z"),
        (certificate.UTC_TIME, "991231235959Z", "1999-12-31T23:59:59Z"),
        (certificate.GENERALIZED_TIME, "20510101000000Z", "2051-01-01T00:00:00Z"),
    ],
)
def test_time_of_a_certificate(tag: int, text: str, expected: str) -> None:
    assert report.iso(certificate.time(tag, text)) == expected


def test_units_are_read() -> None:
    text = (
        "Id=docker.service\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n"
        "UnitFileState=enabled\nNextElapseUSecRealtime=\nNRestarts=2\nActiveEnterTimestamp=@1799999999\n\n"
        "Id=airflow-backup.timer\nLoadState=loaded\nActiveState=active\nSubState=waiting\nResult=success\n"
        "UnitFileState=enabled\nNextElapseUSecRealtime=@1800000000\nNextElapseUSecMonotonic=infinity\n"
        "LastTriggerUSec=@1799913600\n\n"
        "Id=gone.timer\nLoadState=not-found\nActiveState=inactive\n"
    )
    engine, timer = host.parse_units(text)
    assert (engine.name, engine.active, engine.next, engine.restarts) == ("docker.service", "active", 0, 2)
    assert (timer.name, timer.sub, timer.next) == ("airflow-backup.timer", "waiting", 1_800_000_000)
    assert timer.restarts == 0
    assert (engine.last, timer.last) == (0, 1_799_913_600)
    assert (engine.started, timer.started) == (1_799_999_999, 0)


def test_timer_that_counts_from_the_hosts_start_has_a_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as dag-sync.timer, for which systemd names no time of day."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0)
    text = (
        "Id=dag-sync.timer\nLoadState=loaded\nNextElapseUSecRealtime=\n"
        "NextElapseUSecMonotonic=1h 4min 12.5s\nLastTriggerUSec=\n"
    )
    assert host.parse_units(text)[0].next == 1_800_000_252.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3s", 3),
        ("1w 2d 3h 4min 5s 6ms 7us", 788_645.006007),
        ("1month", 2_629_800),
        *((other, None) for other in ("", "0", "infinity", "5", "3 s", "3s ", "n/a")),
    ],
)
def test_span_of_systemd(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None) -> None:
    monkeypatch.setattr(time, "time", lambda: 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    assert host.after_boot(text) == pytest.approx(0 if seconds is None else seconds + 10)


def test_boot_is_told_from_others_also_in_a_container(tmp_path: Path) -> None:
    """There the kernel's boot is another's, and the first process is new."""
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "1").mkdir()

    def boot(kernel: str, started: int) -> str:
        (tmp_path / "sys/kernel/random/boot_id").write_text(f"{kernel}\n")
        numbers = " ".join(["0"] * 18)
        (tmp_path / "1/stat").write_text(f"1 (a) b) S {numbers} {started} 7 8")
        return host.boot(tmp_path)

    assert boot("one", 31) == "one 31"
    assert len({boot("one", 31), boot("one", 77), boot("two", 31)}) == 3
    assert host.boot(tmp_path / "none") == ""
    assert host.boot() == host.boot() != ""


@pytest.mark.parametrize(
    ("active", "enabled", "stopped"),
    [
        ("inactive", "disabled", True),
        ("deactivating", "disabled", True),
        ("deactivating", "enabled", True),
        ("active", "disabled", False),
        ("inactive", "enabled", False),
        ("failed", "enabled", False),
    ],
)
def test_stop_on_purpose_is_a_unit_that_is_off(active: str, enabled: str, stopped: bool) -> None:
    assert host.stopped([Unit("airflow.service", active=active, enabled=enabled)]) == stopped
    assert not host.stopped([Unit("airflow-backup.service", active=active, enabled=enabled)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@1800000000", 1_800_000_000),
        ("Fri 2027-01-15 08:00:00 UTC", 1_800_000_000),
        ("Fri 2027-01-15 09:00:00 CET", 0),
        ("Fri 2027-13-15 08:00:00 UTC", 0),
        ("", 0),
        ("n/a", 0),
        ("infinity", 0),
    ],
)
def test_time_of_systemd(text: str, expected: float) -> None:
    assert host.moment(text) == expected


@given(st.text(max_size=200))
def test_any_words_of_systemd_are_no_error(text: str) -> None:
    host.parse_units(text)


def test_security_updates_are_counted() -> None:
    text = """Inst libc6 [2.41-1] (2.41-2 Debian-Security:13/stable-security [amd64])
Inst bash [5.2-1] (5.2-2 Debian:13.1/stable [amd64])
Inst openssl [3.0] (3.1 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [amd64]) []
Conf libc6 (2.41-2 Debian-Security:13/stable-security [amd64])
"""
    assert host.count_security(text) == 2


def test_answer_of_the_database_is_read() -> None:
    answer = (
        '{"size" : 8000, "scheduler_age" : 2.5, "triggerer_age" : null, "parsed_age" : 12, "running" : 1,'
        ' "queued" : 0, "oldest_queued" : {}, "overdue" : {"weather" : 400.25}}\n'
    )
    known = database.parse(answer)
    assert (known.scheduler_age, known.triggerer_age, known.overdue) == (2.5, None, {"weather": 400.25})


def test_outcomes_are_read() -> None:
    answer = '{ "1800000000" : [12, 1, 34.5, 9.5], "1800003600" : [0, 3, -2, 0] }\n'
    known = database.parse_outcomes(answer)
    assert known == {"1800000000": [12, 1, 34.5, 9.5], "1800003600": [0, 3, 0.0, 0.0]}
    assert database.parse_outcomes("{}") == {}


@pytest.mark.parametrize(
    "answer",
    [
        *("", "[]", '{"x": [1, 2, 3, 4]}', '{"1": [1, 2]}', '{"1": 1}', '{"1": [1, null, 3, 4]}'),
        '{"1": [1, 2, null, 4]}',
    ],
)
def test_other_outcomes_are_an_error(answer: str) -> None:
    with pytest.raises(ValueError, match=r"value|form|literal"):
        database.parse_outcomes(answer)


@pytest.mark.parametrize("answer", ["", "[]", '{"size": 1, "other": 2}', "ERROR"])
def test_other_answer_of_the_database_is_an_error(answer: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        database.parse(answer)


@given(st.floats(0, 10**9))
def test_duration_is_in_words(seconds: float) -> None:
    assert re.fullmatch(r"\d+ (s|(minute|hour|day)s?)", minutes(seconds))


CONTAINER: dict[str, Any] = {
    "Id": "abc",
    "RestartCount": 2,
    "State": {
        "Status": "running",
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "OOMKilled": True,
        "Health": {
            "Status": "unhealthy",
            "FailingStreak": 3,
            "Log": [{"ExitCode": 0, "Output": "ok"}, {"ExitCode": 1, "Output": "does not consume\nit"}],
        },
    },
    "Config": {
        "Image": "airflow:1",
        "Cmd": ["airflow", "celery", "worker"],
        "Env": ["AIRFLOW__CORE__FERNET_KEY=secret", "AIRFLOW__CELERY__WORKER_CONCURRENCY=4", "odd"],
        "Labels": {
            "com.docker.compose.service": "airflow-worker",
            "com.docker.compose.depends_on": "redis:service_healthy:false,postgres:service_healthy:false",
            "airflow-platform.role": "worker",
        },
    },
    "HostConfig": {"Memory": 2**30},
    "NetworkSettings": {"Networks": {"airflow_broker": {"IPAddress": "172.18.0.4"}, "x": {"IPAddress": ""}}},
}


def test_container_is_read_without_its_secrets() -> None:
    known = docker.parse(CONTAINER)
    assert (known.service, known.health, known.failing, known.restarts) == (
        "airflow-worker",
        "unhealthy",
        3,
        2,
    )
    assert known.said == "does not consume it"
    assert (known.memory, known.out_of_memory) == (2**30, True)
    assert known.environment == {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "4"}
    assert known.depends_on == ("postgres", "redis")
    assert known.addresses == ("172.18.0.4",)
    assert known.labels == {"airflow-platform.role": "worker"}
    assert "secret" not in repr(known)


@pytest.mark.parametrize(
    ("target", "commit"),
    [
        (f"worktrees/{'0a' * 20}", "0a" * 20),
        (f"worktrees/{'0a' * 20}-2", "0a" * 20),
        ("working-copy", ""),
        ("worktrees/.new-0a", ""),
        (None, ""),
    ],
)
def test_live_commit_is_the_links(tmp_path: Path, target: str | None, commit: str) -> None:
    (tmp_path / "trees").mkdir()
    if target:
        (tmp_path / "trees/current").symlink_to(target)
    assert host.dag_commit(tmp_path) == commit


def test_files_that_changed_are_named(tmp_path: Path) -> None:
    """A certificate is not: somebody may have dropped another one, as documented."""
    (tmp_path / "env").mkdir()
    (tmp_path / "haproxy").mkdir()
    (tmp_path / "haproxy/haproxy.cfg").write_text("global")
    (tmp_path / "haproxy/certificate.pem").write_text("old")
    (tmp_path / ".env").write_text("A=1")
    (tmp_path / "env/airflow.env").write_text("B=1")
    (tmp_path / "smoke.json").write_text("{}")
    before = host.hashes(tmp_path, tmp_path / "none")
    assert host.changes(before, before) == []
    (tmp_path / "smoke.json").write_text("{1}")
    (tmp_path / "haproxy/haproxy.cfg").write_text("edited")
    (tmp_path / "haproxy/certificate.pem").write_text("new")
    (tmp_path / "env/airflow.env").write_text("B=2")
    (tmp_path / "docker-compose.yaml").write_text("")
    (tmp_path / ".env").unlink()
    names = [".env", "docker-compose.yaml", "env/airflow.env", "haproxy/haproxy.cfg"]
    assert host.changes(before, host.hashes(tmp_path, tmp_path / "none")) == [
        str(tmp_path / name) for name in names
    ]


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("etc/airflow-checker/settings.json", True),
        ("etc/airflow-monitoring/prometheus.yml", True),
        ("etc/airflow-release/settings.json", True),
        ("etc/airflow-release/tmpfiles.conf", True),
        ("etc/systemd/system/airflow-backup.timer", True),
        ("etc/systemd/system/docker.service.d/airflow.conf", True),
        ("etc/systemd/system/docker.service.d/restart.conf", True),
        ("usr/local/bin/airflow-checker", True),
        ("usr/local/bin/airflow-release", True),
        ("usr/local/bin/dag-sync", True),
        ("etc/systemd/system/docker.service.d/proxy-of-the-office.conf", False),
        ("usr/local/bin/of-somebody-else", False),
    ],
)
def test_file_outside_the_platforms_directory_that_changed_is_named(
    tmp_path: Path, file: str, named: bool
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("as it was rendered")
    before = host.hashes(tmp_path / "srv", tmp_path)
    path.write_text("edited")
    after = host.hashes(tmp_path / "srv", tmp_path)
    assert host.changes(before, after) == ([str(path)] if named else [])


def test_rendered_files_are_compared() -> None:
    """Every template of the host's files, but what only a build or a reader of reports has."""
    others = {"srv/airflow/build/docker-bake.json", "srv/airflow/releases/report.html"}
    # An operator's own keys are in it; Docker says itself what counts.
    others.add("etc/docker/daemon.json")
    templates = Path(__file__).resolve().parents[2] / "templates"
    files = {str(path.relative_to(templates))[: -len(".j2")] for path in templates.rglob("*.j2")}
    # Those of a worker host, which has a checker of its own.
    files = {file.removeprefix("worker/") for file in files}
    patterns = [f"srv/airflow/{pattern}" for pattern in host.RENDERED]
    patterns += [f"etc/systemd/system/{pattern}" for pattern in host.UNITS]
    patterns += host.ELSEWHERE
    compared = {file for file in files for pattern in patterns if fnmatch.fnmatchcase(file, pattern)}
    assert files - compared == others


ILL_WEBHOOK = {"lights": [{"id": "dags-pinned", "what": "Pinned to 1a2b: pushes do not go live."}]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"lights": []}, []),
        (ILL_WEBHOOK, [Told("dags-pinned", "Pinned to 1a2b: pushes do not go live.")]),
        ({"lights": [{"id": "of a later release", "what": "It."}, *ILL_WEBHOOK["lights"]]}, ["dags-pinned"]),
        ({"lights": [{"id": "docker-down", "what": "It."}]}, []),
        ({"lights": [{"id": "sync-failed", "what": "x" * 5000}]}, [Told("sync-failed", "x" * 300)]),
        ({"lights": [{"id": "sync-failed", "what": "It."}] * 500}, ["sync-failed"] * 20),
    ],
)
def test_what_the_webhook_tells_is_read(answer: object, expected: list[Any]) -> None:
    told = webhook.parse(json.dumps(answer).encode()).lights
    assert [one if isinstance(other, Told) else one.light for one, other in zip(told, expected)] == expected
    assert len(told) == len(expected)


@pytest.mark.parametrize(
    "answer", ["", "[]", "{}", '{"lights": 3}', '{"lights": [3]}', '{"lights": [{}]}', "[" * 9999]
)
def test_other_answer_of_the_webhook_is_one_kind_of_error(answer: str) -> None:
    with pytest.raises(webhook.WebhookError):
        webhook.parse(answer.encode())


HOST: dict[str, Any] = {
    "name": "atd-worker01",
    "release": "2-11-2-d444c6765d29",
    "commit": "0123456789" * 4,
    "queues": ["default", "atd-worker01"],
    "slots": 8,
    "state": "live",
    "heard_seconds_ago": 3.2,
}
UNHEARD = {**HOST, "release": None, "commit": None, "queues": [], "slots": None, "heard_seconds_ago": None}


def of_workers(*workers: Any) -> bytes:
    """The answer of a webhook that knows these worker hosts, and of which nothing is wrong."""
    return json.dumps({"lights": [], "workers": list(workers)}).encode()


def test_worker_hosts_are_read() -> None:
    unheard = {**UNHEARD, "name": "atd-worker02", "state": "silent"}
    assert webhook.parse(of_workers(HOST, unheard)).workers == [
        WorkerHost(**{**HOST, "queues": ("default", "atd-worker01")}),
        WorkerHost("atd-worker02", "silent", heard_seconds_ago=None),
    ]
    assert webhook.parse(b'{"lights": []}').workers == []


@pytest.mark.parametrize("state", webhook.STATES)
def test_worker_host_takes_tasks_while_it_is_heard_and_not_cut_off(state: str) -> None:
    [known] = webhook.parse(of_workers({**HOST, "state": state})).workers
    assert known.takes_tasks == (state in ("live", "preparing"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(name=st.sampled_from([*HOST, "all of it"]), value=VALUES)
def test_unexpected_value_of_a_worker_host_is_one_kind_of_error(name: str, value: Any) -> None:
    """Whatever is taken can be judged and shown."""
    worker = value if name == "all of it" else {**HOST, name: value}
    try:
        [known] = webhook.parse(of_workers(worker)).workers
    except webhook.WebhookError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", known.name)
    assert known.state in webhook.STATES
    assert re.fullmatch(r"([0-9a-f]{40})?", known.commit)
    assert all(word.isprintable() for word in (known.release, *known.queues))
    assert type(known.slots) is int
    assert known.slots >= 0
    assert known.heard_seconds_ago is None or minutes(known.heard_seconds_ago)


UNEXPECTED: dict[str, list[Any]] = {
    "name": ["", "-a", "a b", "a/b", "a\n", None, 3, "a" * 254],
    "state": ["dead", "", None, 3, ["live"]],
    "release": [0, False, [], "a\n", "a" * 254],
    "commit": [0, "012345", "g" * 40, "0" * 41],
    "queues": [None, "default", [None], ["a\n"], ["a"] * 101, {"a": 1}],
    "slots": [-1, 1.5, True, "8", 10_001],
    "heard_seconds_ago": [-1, True, "3", 1e300, float("inf"), float("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in UNEXPECTED.items() for value in values]
)
def test_document_with_an_unexpected_value_is_not_used(name: str, value: Any) -> None:
    with pytest.raises(webhook.WebhookError):
        webhook.parse(of_workers({**HOST, name: value}))


@pytest.mark.parametrize("name", HOST)
def test_document_without_a_value_is_not_used(name: str) -> None:
    with pytest.raises(webhook.WebhookError):
        webhook.parse(of_workers({each: value for each, value in HOST.items() if each != name}))


@pytest.mark.parametrize("workers", [None, {}, "x", [HOST, HOST], [UNHEARD] * 101, [None]])
def test_document_with_other_worker_hosts_is_not_used(workers: Any) -> None:
    with pytest.raises(webhook.WebhookError):
        webhook.parse(json.dumps({"lights": [], "workers": workers}).encode())


QUEUES = st.text(st.characters(exclude_characters="\x06\x16", exclude_categories=["Cs"]), min_size=1).filter(
    redis.is_queue
)


@given(QUEUES, st.none() | st.integers(0, 255))
def test_queue_of_a_list_is_told_from_its_priority(queue: str, priority: int | None) -> None:
    key = queue if priority is None else f"{queue}{redis.PRIORITY}{priority}"
    assert redis.queue_of(key.encode()) == queue


@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from([*redis.UNACKED, "of Celery"]))
def test_list_of_celery_is_no_queue(name: str, own: str) -> None:
    lists = [own] if own in redis.UNACKED else [f"{name}.reply.celery.pidbox", f"celery@{name}.celery.pidbox"]
    lists += [f"celeryev.{name}", f"_kombu.binding.{name}", "celeryev"]
    assert {redis.queue_of(key.encode()) for key in lists} == {None}


@given(st.binary(max_size=60))
def test_any_key_has_one_queue_or_none(key: bytes) -> None:
    queue = redis.queue_of(key)
    assert queue is None or redis.is_queue(queue)
