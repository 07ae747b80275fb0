"""A push, announced as the workflow does it, goes through channel, relay and webhook, and is live."""

from __future__ import annotations

from delivery import TREES, Delivery, dag_source, new_name


def test_new_dag_goes_live(delivery: Delivery) -> None:
    """In Airflow, on the status page, and on GitHub."""
    dag = new_name("new")
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)}, "Add a DAG")
    delivery.announce(commit)
    delivery.wait_until_known(dag)
    assert delivery.live() == commit
    assert delivery.host.file(f"{TREES}/current/dags/{dag}.py").exists
    page = delivery.page()["delivery"]
    assert page["live"]["id"] == commit
    assert page["live"]["author"] == "Test Colleague"
    assert page["last_sync"]["outcome"] in ("switched", "unchanged")
    status = delivery.wait_for_status(commit, "success")
    assert status["context"] == "airflow/live"


def test_dag_may_use_the_schedulers_environment_and_plugins(delivery: Delivery) -> None:
    """The gate has both, too: what runs in the scheduler is not refused."""
    dag = new_name("environment")
    uses = (
        "import os\nimport sys\n"
        'assert os.environ["AIRFLOW_HOME"] == "/opt/airflow"\n'
        'assert os.environ["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"\n'
        'assert "/opt/airflow/plugins" in sys.path and os.path.isdir("/opt/airflow/plugins")\n'
    )
    delivery.announce(delivery.repository.push({f"dags/{dag}.py": uses + dag_source(dag)}))
    delivery.wait_until_known(dag)


def test_changed_dag_goes_live(delivery: Delivery) -> None:
    """A change is picked up as fast as a new file is."""
    dag = new_name("changed")
    delivery.announce(delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "the first")}))
    delivery.wait_until_known(dag, "the first")
    delivery.announce(delivery.repository.push({f"dags/{dag}.py": dag_source(dag, "the second")}))
    delivery.wait_until_known(dag, "the second")


def test_removed_dag_goes(delivery: Delivery) -> None:
    """The file is gone from the tree that Airflow reads at once."""
    dag = new_name("removed")
    delivery.announce(delivery.repository.push({f"dags/{dag}.py": dag_source(dag)}))
    delivery.wait_until_known(dag)
    commit = delivery.repository.push({f"dags/{dag}.py": None})
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    assert not delivery.host.file(f"{TREES}/current/dags/{dag}.py").exists


def test_unchanged_files_keep_their_times(delivery: Delivery) -> None:
    """Airflow then parses only what a push changed."""
    find = f"find {TREES}/current/dags -name '*.py' -printf '%P %T@\\n'"
    before = set(delivery.host.check_output(find).splitlines())
    assert before
    dag = new_name("times")
    commit = delivery.repository.push({f"dags/{dag}.py": dag_source(dag)})
    delivery.announce(commit)
    delivery.wait_until_live(commit)
    after = set(delivery.host.check_output(find).splitlines())
    assert before <= after
    assert [line.split()[0] for line in after - before] == [f"{dag}.py"]
