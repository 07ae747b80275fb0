"""weather-checker run as Airflow runs it, with a forecast, a camera, a Connect server and an engine."""

import json
import os
import stat
import time
from pathlib import Path

import pendulum
import pytest
from conftest import HOME
from engine import serve_engine
from test_weather_page import Page

FORECAST = {"properties": {"periods": [{"name": "Tonight", "detailedForecast": "Clear & calm <3 mph."}]}}
PICTURE = b"\xff\xd8 the camera's picture"


@pytest.fixture
def weather(tmp_path):
    """The weather volume as the worker sees it, empty."""
    from weather_checker import WEATHER_DIR

    assert WEATHER_DIR == HOME / "weather"
    WEATHER_DIR.mkdir(exist_ok=True)
    for left in WEATHER_DIR.iterdir():
        left.unlink()
    return WEATHER_DIR


@pytest.fixture
def sources(site, connect, monkeypatch):
    """A weather service and a camera that answer, and a Slack that takes messages."""
    site.answers["/forecast"] = (200, json.dumps(FORECAST).encode())
    site.answers["/camera.jpg"] = (200, PICTURE)
    site.answers["/services/T/B/X"] = (200, b"ok")
    monkeypatch.setenv("AIRFLOW_VAR_WEATHER_FORECAST_URL", site.url + "/forecast")
    monkeypatch.setenv("AIRFLOW_VAR_WEATHER_CAMERA_URL", site.url + "/camera.jpg")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK", site.url + "/services/T/B/X")
    return site


@pytest.fixture
def engine(tmp_path, weather, dag_bag, monkeypatch):
    """An engine in which the annotate image is a copy with a mark."""

    def annotate(container):
        source, target = (weather / Path(name).name for name in container["Cmd"][:2])
        target.write_bytes(source.read_bytes() + b" annotated")
        return 0, "annotated"

    with serve_engine(tmp_path / "docker.sock", ["airflow-annotate:test"], annotate) as engine:
        task = dag_bag.dags["weather-checker"].get_task("annotate")
        monkeypatch.setattr(task, "docker_url", f"unix://{tmp_path}/docker.sock")
        yield engine


@pytest.fixture
def run(dag_bag, database, monkeypatch):
    """Run the DAG once without waiting between tries, and return the states of its tasks."""
    from airflow.models import DagRun

    dag = dag_bag.dags["weather-checker"]
    for task in dag.tasks:
        monkeypatch.setattr(task, "retries", 0)

    def run():
        # Some versions raise when a task fails, others do not; all keep it in the database, asked here.
        moment = pendulum.now("UTC")
        try:
            dag.test(execution_date=moment)
        except Exception as error:
            print(f"dag.test: {error!r}")
        [dag_run] = DagRun.find(dag_id=dag.dag_id, execution_date=moment)
        return {instance.task_id: instance.state for instance in dag_run.get_task_instances()}

    return run


SUCCESS = {"download": "success", "annotate": "success", "publish": "success"}


def test_run_publishes_picture_and_page(run, sources, engine, weather):
    from sandbox.seed import phrase

    assert run() == SUCCESS
    assert sorted(path.name for path in weather.iterdir()) == ["camera.jpg", "index.html"]
    assert (weather / "camera.jpg").read_bytes() == PICTURE + b" annotated"
    page = Page((weather / "index.html").read_text(encoding="utf-8"))
    assert page.texts["forecast"] == "Tonight: Clear & calm <3 mph."
    assert page.texts["secret"] == phrase("development")
    age = pendulum.now("UTC") - pendulum.parse(page.ids["executed-at"]["datetime"])
    assert 0 <= age.total_seconds() < 60
    assert stat.S_IMODE((weather / "index.html").stat().st_mode) == 0o644


def test_forecast_is_asked_for_by_name(run, sources, engine):
    run()
    agents = {path: headers["User-Agent"] for method, path, headers, _ in sources.requests if method == "GET"}
    assert set(agents) == {"/forecast", "/camera.jpg"}
    assert all("weather-checker" in agent for agent in agents.values())


def test_container_gets_the_volume_and_nothing_else(run, sources, engine):
    assert run() == SUCCESS
    container = engine.created
    assert container["Image"] == "airflow-annotate:test"
    assert container["User"] == f"{os.getuid()}:0"
    original, output, title, timestamp = container["Cmd"]
    assert original.startswith("/weather/.camera-original-")
    assert output == "/weather/camera.jpg"
    assert title == "--title=38th & Duval"
    assert timestamp.startswith("--timestamp=")
    assert timestamp.endswith(("CST", "CDT"))
    host = container["HostConfig"]
    assert host["NetworkMode"] == "none"
    [mount] = host["Mounts"]
    assert (mount["Type"], mount["Source"], mount["Target"]) == ("volume", "airflow_weather", "/weather")
    assert not host.get("Privileged")
    assert not host.get("Binds")
    assert engine.removed


def test_secret_is_neither_logged_nor_stored(run, sources, engine, caplog, capfd):
    from airflow.models import XCom
    from airflow.utils.session import create_session

    from sandbox.seed import phrase

    assert run() == SUCCESS
    printed = capfd.readouterr()
    with create_session() as session:
        stored = [str(entry.value) for entry in session.query(XCom).filter(XCom.dag_id == "weather-checker")]
    for text in (caplog.text, printed.out, printed.err, *stored):
        assert phrase("development") not in text


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/forecast", (503, b"")),
        ("/forecast", (200, b"<html>")),
        ("/forecast", (200, b"{}")),
        ("/camera.jpg", (404, b"")),
    ],
)
def test_source_that_is_down_fails_the_run_and_keeps_the_page(run, sources, engine, weather, path, answer):
    (weather / "index.html").write_text("the last page", encoding="utf-8")
    sources.answers[path] = answer
    assert run()["download"] == "failed"
    assert [path.name for path in weather.iterdir()] == ["index.html"]
    assert (weather / "index.html").read_text(encoding="utf-8") == "the last page"
    [alert] = [body for method, _, _, body in sources.requests if method == "POST"]
    assert "download" in json.loads(alert)["text"]


@pytest.mark.parametrize("address", ["gridpoints/nowhere", "ftp://example.org/forecast", "http://", ""])
def test_address_that_is_none_is_not_tried_again(address):
    from airflow.exceptions import AirflowFailException
    from weather_checker import fetch

    with pytest.raises(AirflowFailException, match=f"Not an address of a web page: '{address}'"):
        fetch(address)


def test_failed_container_fails_the_run_and_is_removed(run, sources, engine, weather):
    engine.program = lambda container: (65, "annotate: not a picture")
    states = run()
    assert states["annotate"] == "failed"
    assert states["publish"] in ("upstream_failed", None), "it must not have run"
    assert engine.removed
    assert not (weather / "index.html").exists()


def test_missing_secret_fails_the_run_and_keeps_the_page(run, sources, engine, weather, monkeypatch):
    monkeypatch.setenv("OP_VAULT_ID", "anothervault00000000000000")
    (weather / "index.html").write_text("the last page", encoding="utf-8")
    assert run()["publish"] == "failed"
    assert (weather / "index.html").read_text(encoding="utf-8") == "the last page"


def test_pictures_of_failed_runs_are_removed_when_they_are_old(weather):
    from weather_checker import ORIGINAL_MAX_AGE_SECONDS, remove_old_originals

    for name, age in {
        ".camera-original-old": ORIGINAL_MAX_AGE_SECONDS + 60,
        ".camera-original-new": 60,
    }.items():
        (weather / name).write_bytes(b"")
        os.utime(weather / name, (time.time() - age,) * 2)
    (weather / "camera.jpg").write_bytes(b"")
    os.utime(weather / "camera.jpg", (0, 0))
    remove_old_originals(weather)
    assert sorted(path.name for path in weather.iterdir()) == [".camera-original-new", "camera.jpg"]


def test_file_that_cannot_be_replaced_leaves_no_temporary_file(weather):
    from weather_checker import write_file

    (weather / "index.html").mkdir()
    try:
        with pytest.raises(OSError, match=r"index\.html"):
            write_file(weather / "index.html", b"page")
        assert [path.name for path in weather.iterdir()] == ["index.html"]
    finally:
        (weather / "index.html").rmdir()
