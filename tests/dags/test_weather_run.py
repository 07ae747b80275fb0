"""weather-checker run as Airflow runs it, with a forecast, a camera, a Connect server and a Docker."""

import json
import os
import re
import shutil
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
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    return WEATHER_DIR


def shown(weather):
    """Return what somebody who opens the page gets: the page, and the picture that it names."""
    page = Page((weather / "index.html").read_text(encoding="utf-8"))
    return page, (weather / page.ids["camera"]["src"]).read_bytes()


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
    """A Docker in which the annotate image is a copy with a mark."""

    def annotate(container):
        source, target = (weather / Path(name).relative_to("/weather") for name in container["Cmd"][:2])
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
    page, picture = shown(weather)
    assert picture == PICTURE + b" annotated"
    [folder] = weather.glob("run-*")
    assert sorted(path.name for path in weather.iterdir()) == ["index.html", folder.name]
    assert sorted(path.name for path in folder.iterdir()) == ["camera.jpg", "page.html"]
    assert page.texts["forecast"] == "Tonight: Clear & calm <3 mph."
    assert page.texts["secret"] == phrase("development")
    age = pendulum.now("UTC") - pendulum.parse(page.ids["executed-at"]["datetime"])
    assert 0 <= age.total_seconds() < 60
    assert stat.S_IMODE((weather / "index.html").stat().st_mode) == 0o644
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


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
    assert re.fullmatch(r"/weather/run-\w+/original", original)
    assert output == original.replace("original", "camera.jpg")
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
        fetch(address, 1000)


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


@pytest.mark.parametrize("broken", ["annotate", "publish"])
def test_run_that_fails_changes_neither_page_nor_picture(run, sources, engine, weather, monkeypatch, broken):
    """A caption says when its picture was taken: of another picture it would be wrong."""
    assert run() == SUCCESS
    page, picture = shown(weather)
    sources.answers["/camera.jpg"] = (200, b"another picture")
    if broken == "publish":
        monkeypatch.setenv("OP_VAULT_ID", "anothervault00000000000000")
    else:
        engine.program = lambda container: (65, "annotate: not a picture")
    assert run()[broken] == "failed"
    page_now, picture_now = shown(weather)
    assert picture_now == picture == PICTURE + b" annotated"
    assert page_now.texts == page.texts


def test_page_and_picture_change_in_one_step(run, sources, engine, weather, monkeypatch):
    """Whoever looks in the middle of a run sees the one before, and its picture is there a while longer."""
    assert run() == SUCCESS
    before = shown(weather)
    sources.answers["/camera.jpg"] = (200, b"another picture")
    seen = []
    replace = Path.replace

    def watched(path, target):
        if Path(target) != weather / "index.html":
            return replace(path, target)
        seen.append(shown(weather)[1])
        result = replace(path, target)
        seen.append(shown(weather)[1])
        return result

    monkeypatch.setattr(Path, "replace", watched)
    assert run() == SUCCESS
    assert seen == [before[1], b"another picture annotated"]
    assert (weather / before[0].ids["camera"]["src"]).read_bytes() == before[1]


def test_page_without_its_picture_is_not_shown(weather):
    from airflow.exceptions import AirflowFailException
    from weather_checker import make_run_folder, publish_page

    with pytest.raises(AirflowFailException, match="no picture"):
        publish_page(make_run_folder(weather), "<!DOCTYPE html>")
    assert not (weather / "index.html").exists()


@pytest.mark.parametrize("path", ["/forecast", "/camera.jpg"])
def test_long_answer_is_not_read_to_its_end(run, sources, engine, weather, path):
    """600 MiB would otherwise take the worker's memory before anybody looks at the size."""
    sources.endless[path] = 600 * 2**20
    assert run()["download"] == "failed"
    # Beside what the task takes, the sockets have buffers.
    assert sources.sent[path] < 64 * 2**20
    assert list(weather.iterdir()) == []


@pytest.mark.parametrize("shown", ["run-shown", "camera.jpg"])
def test_what_old_runs_left_is_removed(weather, shown):
    """But for what is shown, also by a page of an earlier version, and for what somebody else put there."""
    from weather_checker import LINK, RUN_MAX_AGE_SECONDS, remove_old_runs

    names = ["run-old", "run-shown", "run-new", "camera.jpg", ".camera-original-old", "robots.txt"]
    for name in names:
        if name.startswith("run-"):
            (weather / name).mkdir()
            (weather / name / "camera.jpg").write_bytes(b"")
        else:
            (weather / name).write_bytes(b"")
        age = 60 if name == "run-new" else RUN_MAX_AGE_SECONDS + 60
        os.utime(weather / name, (time.time() - age,) * 2)
    if shown == "run-shown":
        (weather / LINK).symlink_to("run-shown/page.html")
    else:
        (weather / LINK).write_text("the page of an earlier version")
    remove_old_runs(weather)
    assert {path.name for path in weather.iterdir()} == {shown, LINK, "robots.txt", "run-new"}
