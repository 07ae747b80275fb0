"""The settings of worker hosts: preflight refuses what a certificate, a network or Celery could not use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.endpoints import ENDPOINTS
from tests.policy.conftest import ROOT, Rendered, load
from tests.policy.test_dag_containers import WIRING, preflight

LIMITS = load(ROOT / "playbooks/group_vars/all/defaults.yml")["service_limits_default"]


def check(folder: Path, *workers: list[Any], port: Any = 8443, main_hosts: tuple[str, ...] = ()) -> Any:
    """Run preflight with the worker hosts of an inventory, and its main hosts."""
    ports = [endpoint["port"] for endpoint in ENDPOINTS]
    return preflight(
        folder,
        workers=workers,
        worker_port=port,
        main_hosts=main_hosts,
        endpoints=ENDPOINTS,
        ports=ports,
        service_limits_default=LIMITS,
    )


def test_preflight_takes_worker_hosts(tmp_path: Path) -> None:
    run = check(
        tmp_path,
        ["atd-worker01", ["default", "atd-worker01"], 8, 8793, "10.0.0.21", "10.0.0.5"],
        ["w2", ["large.tasks"], "16", "9793", "worker02.example.org", "airflow.example.org"],
        port="9443",
    )
    assert run.ok, run.output


def test_preflight_names_all_that_it_refuses(tmp_path: Path) -> None:
    """In one run, each with the host and what is expected."""
    good = [["default"], 8, 8793, "10.0.0.21", "10.0.0.5"]
    run = check(
        tmp_path,
        ["Worker.example.org", *good],
        ["a-copy", *good],
        ["n" * 59, *good],
        ["postgres", *good],
        ["gateway", *good],
        ["w1", "default", 0, 70000, "https://w1", "10.0.0.5:80"],
        ["w2", ["a,b"], "8x", "port", "", "10.0.0.5"],
        port=8081,
    )
    assert not run.ok
    for words in (
        "worker_port is 8081, which the platform has for its pages; choose another port.",
        "airflow_workers has Worker.example.org; 1 to 58 lower-case letters, digits and - are expected",
        "airflow_workers has a-copy; 1 to 58",
        f"airflow_workers has {'n' * 59}; 1 to 58",
        "airflow_workers has postgres, which is a name of the platform itself; choose another name.",
        "airflow_workers has gateway, which is a name of the platform itself",
        "worker_queues of w1 is default; a list of names such as [default, large] is expected.",
        "worker_concurrency of w1 is 0; a whole number from 1 to 999 is expected.",
        "worker_log_port of w1 is 70000; a port from 1 to 65535 is expected.",
        "worker_address of w1 is https://w1; a name or an IPv4 address is expected.",
        "worker_main_address of w1 is 10.0.0.5:80; a name or an IPv4 address is expected.",
        "worker_queues of w2 is ['a,b']",
        "worker_concurrency of w2 is 8x;",
        "worker_log_port of w2 is port;",
        "worker_address of w2 is ;",
    ):
        assert words in run.output


@pytest.mark.parametrize(
    ("workers", "main_hosts", "expected"),
    [
        (["atd-worker01"], ["atd-data03"], ""),
        ([], ["atd-data03", "atd-data04"], ""),
        (
            ["atd-worker01", "atd-data03"],
            ["atd-data03"],
            "airflow_workers has atd-data03, which is a main host",
        ),
        (["atd-worker01"], ["atd-data03", "atd-data04"], "airflow has atd-data03 and atd-data04; give each"),
    ],
)
def test_main_host_is_no_worker_host(
    tmp_path: Path, workers: list[str], main_hosts: list[str], expected: str
) -> None:
    """A worker's files and containers would replace its own. And workers have one main host."""
    good = [["default"], 8, 8793, "10.0.0.21", "10.0.0.5"]
    run = check(tmp_path, *([name, *good] for name in workers), main_hosts=tuple(main_hosts))
    assert run.ok == (not expected), run.output
    assert expected in run.output
    assert WIRING["preflight_main_hosts"] == "{{ groups['airflow'] | default([]) }}"


def test_worker_port_counts_only_with_worker_hosts(tmp_path: Path) -> None:
    run = check(tmp_path, port=8081)
    assert run.ok, run.output


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("worker hosts", {"atd-worker01": ["default"], "atd-worker02": ["default", "large"]}),
        ("worker hosts and a repository", None),
        ("a repository", None),
        ("host names", None),
    ],
)
def test_checker_knows_the_queues_of_worker_hosts_that_tell_nobody(
    rendered: dict[str, Rendered], case: str, expected: dict[str, list[str]] | None
) -> None:
    """With a repository they tell the webhook, which the checker asks; without such hosts nothing is said."""
    settings = json.loads(rendered[case]["etc/airflow-checker/settings.json"])
    assert settings.get("worker_queues") == expected
