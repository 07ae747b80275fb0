"""The city's DockerOperators through the filter, as each supported provider sends them."""

import inspect
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.docker.operators.docker import DockerOperator
from conftest import ROOT
from docker import APIClient
from docker.types import Mount

sys.path.append(str(ROOT / "docker_policy/src"))

from docker_policy.server import Filter
from docker_policy.settings import MAKERS_LABEL, OWNER_LABEL, TASK_LABEL, Settings

from tests.docker_policy.fake_docker import FakeDocker, serve

IMAGE = "atddocker/etl:production"


@pytest.fixture
def docker():
    """A filter as the platform has it, and a fake Docker behind it; `url` is the filter's."""
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        folder = Path(name)
        engine = FakeDocker(folder / "docker.sock")
        engine.url = f"unix:/{folder}/dags.sock"
        settings = Settings(
            **{"images": ("atddocker/*",), "volumes": ("knack",), "registries": ("docker.io",)},
            **{"memory_mib": 1024, "cpus": 2, "pids": 512},
            **{"socket": folder / "dags.sock", "docker_socket": folder / "docker.sock"},
        )
        with serve(engine), serve(Filter(settings)):
            yield engine


def run(docker, **options):
    """Run an operator, and return the create request that reached Docker."""
    given = {"image": IMAGE, "command": "python etl.py", "auto_remove": "success", "tty": True, **options}
    DockerOperator(task_id="docker", docker_url=docker.url, **given).execute({})
    [document] = docker.created
    assert document["HostConfig"]["PidsLimit"] == 512
    assert document["Labels"][OWNER_LABEL] == "true"
    assert docker.calls[-1].split()[0] == "DELETE"
    return document


@pytest.mark.skipif("DOCKER_PROVIDER" not in os.environ, reason="the lock file says which provider it is")
def test_provider_is_the_one_that_was_asked_for():
    assert inspect.getfile(DockerOperator).startswith(os.environ["DOCKER_PROVIDER"])


@pytest.mark.parametrize("mount_tmp_dir", [True, False])
@pytest.mark.parametrize("force_pull", [True, False])
@pytest.mark.parametrize("api_version", [None, "auto"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"command": ["python", "etl.py"], "network_mode": "bridge", "environment": {"A": "1"}},
        {"entrypoint": ["/bin/sh", "-c"], "mounts": [Mount("/data", "knack", type="volume")]},
        {
            "tty": False,
            "command": None,
            "user": 50000,
            "working_dir": "/app",
            "mem_limit": "512m",
            "cpus": 0.5,
        },
    ],
    ids=["plain", "list", "entrypoint and volume", "others"],
)
def test_citys_shapes_run(docker, options, api_version, force_pull, mount_tmp_dir):
    """A bind that the filter refuses is one that the operator does without."""
    document = run(
        docker, **options, api_version=api_version, force_pull=force_pull, mount_tmp_dir=mount_tmp_dir
    )
    assert document["Image"] == f"docker.io/{IMAGE}"
    assert [mount["Source"] for mount in document["HostConfig"]["Mounts"]] == (
        ["knack"] if "mounts" in options else []
    )
    assert not any(entry.startswith("AIRFLOW_TMP_DIR") for entry in document.get("Env") or [])


@pytest.mark.parametrize("api_version", [None, "auto"])
def test_login_of_the_connection(docker, monkeypatch, api_version):
    """With the address that the city's connection has."""
    if api_version is None and os.environ.get("DOCKER_PROVIDER", "").endswith("-3.4.0"):
        pytest.skip("this provider itself asks for a version wherever there is a connection")
    monkeypatch.setenv(
        "AIRFLOW_CONN_DOCKER_DEFAULT", "docker://city:secret@https%3A%2F%2Findex.docker.io%2Fv1%2F:80"
    )
    run(docker, docker_conn_id="docker_default", mount_tmp_dir=False, api_version=api_version)
    assert any(call.endswith("/auth") for call in docker.calls)


def test_log_names_dag_and_task(docker, monkeypatch, capsys):
    """As the worker's settings have it, for whatever client a task makes."""
    hook = runpy.run_path(str(ROOT / "images/airflow/config/airflow_local_settings.py"))[
        "get_airflow_context_vars"
    ]
    monkeypatch.setattr(APIClient, "__init__", APIClient.__init__)
    assert hook({"ti": SimpleNamespace(dag_id="kn\u00e4ck", task_id="etl")}) == {}
    run(docker, mount_tmp_dir=False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["operation"] for line in lines] == ["pull", "create"]
    assert {(line["dag"], line["task"]) for line in lines} == {("kn\\xe4ck", "etl")}


def test_container_names_task_and_worker(docker, monkeypatch):
    """So that it is stopped once its own worker is gone, and no other's."""
    hook = runpy.run_path(str(ROOT / "images/airflow/config/airflow_local_settings.py"))[
        "get_airflow_context_vars"
    ]
    monkeypatch.setattr(APIClient, "__init__", APIClient.__init__)
    hook({"ti": SimpleNamespace(dag_id="knack", task_id="etl")})
    own, other = docker.put("worker"), docker.put("other")
    own.place = other.place = str(Path(str(docker.server_address)).parent)
    monkeypatch.setattr("socket.gethostname", lambda: own.host_name)
    labels = run(docker, mount_tmp_dir=False)["Labels"]
    assert labels[MAKERS_LABEL] == f"{own.host_name}@{own.started_at}"
    assert labels[TASK_LABEL] == "knack/etl"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image": "evil/x"}, "dag_container_images in the inventory"),
        ({"privileged": True}, "HostConfig.Privileged: DAGs may not set this"),
        ({"network_mode": "host"}, "HostConfig.NetworkMode"),
        (
            {"mounts": [Mount("/x", "airflow_postgres_data", type="volume")]},
            "dag_container_volumes of the inventory",
        ),
    ],
)
def test_refusal_says_in_the_tasks_log_what_to_do(docker, options, sentence):
    with pytest.raises(Exception, match=sentence) as caught:
        run(docker, mount_tmp_dir=False, **options)
    assert not isinstance(caught.value, AirflowException)
    assert docker.created == []
