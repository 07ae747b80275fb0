"""`destroy.yml` leaves nothing of the platform on a worker, and keeps Docker there. It comes last."""

from __future__ import annotations

from control_node import ControlNode
from expected import DIRECTORY, PROJECT
from long_tests import when_asked
from worker_host import WorkerHost

CONFIRMED = "--extra-vars=confirm_host=atd-data03"
OF_THE_PLATFORM = f"--filter label=com.docker.compose.project={PROJECT}"


@when_asked
def test_destruction_leaves_nothing_on_a_worker(
    control: ControlNode, with_workers: str, workers: dict[str, WorkerHost]
) -> None:
    """No container, volume, network, unit or file; Docker stays. What is gone is no error."""
    for _ in range(2):
        control.run("playbooks/destroy.yml", with_workers, CONFIRMED).succeeded()
    for worker in workers.values():
        host = worker.host
        for listing in ("ps --all", "volume ls", "network ls"):
            assert host.check_output(f"docker {listing} --quiet {OF_THE_PLATFORM}") == ""
        units = "find /etc/systemd/system ( -name 'airflow*' -o -lname '*airflow*' )"
        assert host.check_output(units.replace("(", "\\(").replace(")", "\\)")) == ""
        assert host.check_output(f"find {DIRECTORY} -mindepth 1 -not -path '*/trees*'") == ""
        assert host.run("nft list table inet airflow_dags").rc != 0
        assert host.service("docker").is_running
