"""What `site.yml` keeps equal on a worker: the plugins, and the images of the platform. About two minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_node import ControlNode
from expected import DIRECTORY
from long_tests import when_asked
from testinfra.host import Host
from worker_host import WorkerHost

PLUGIN = f"{DIRECTORY}/plugins/of_tests.py"
GONE = f"{DIRECTORY}/plugins/only_on_the_worker.py"
OLD = "airflow-platform/airflow:of-tests"


@pytest.fixture
def different(host: Host, worker: WorkerHost) -> Iterator[None]:
    """A plugin on each side that the other has not, and an image that only the worker has."""
    host.check_output(f"echo 'NAME = 1' > {PLUGIN}")
    worker.check(f"touch {GONE}")
    worker.check(f"docker tag $(sed -n s/^WEATHER_IMAGE=//p .env) {OLD}")
    yield
    host.check_output(f"rm -f {PLUGIN}")
    worker.check(f"rm -f {PLUGIN} {GONE}")
    worker.run(f"docker rmi {OLD}")


@when_asked
@pytest.mark.usefixtures("healthy", "different")
def test_worker_has_the_main_hosts_plugins_and_no_image_that_it_lacks(
    control: ControlNode, with_workers: str, worker: WorkerHost
) -> None:
    control.run("site.yml", with_workers, seconds=900).succeeded()
    assert worker.host.file(PLUGIN).content_string == "NAME = 1\n"
    assert not worker.host.file(GONE).exists
    assert worker.run(f"docker image inspect {OLD}").rc != 0
    done = worker.inside("print(open('/opt/airflow/plugins/of_tests.py').read())")
    assert "NAME = 1" in done.stdout, done.stderr
    worker.wait_until_healthy()
