"""The DAG `weather-checker`: every five minutes a page with the weather, and the proof that all works.

It uses one of everything that DAGs rely on: the internet, a secret, a Docker container and a shared volume.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pendulum
import requests
from airflow.decorators import dag, task
from airflow.exceptions import AirflowException, AirflowFailException
from airflow.models import Variable
from airflow.providers.docker.operators.docker import DockerOperator
from docker.types import Mount
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from utils.onepassword import load_dict
from utils.slack_operator import task_fail_slack_alert

ENVIRONMENT = os.environ.get("ENVIRONMENT", "development")
TIME_ZONE = "America/Chicago"
TIME_FORMAT = "dddd, MMMM D, YYYY [at] h:mm:ss A zz"

FORECAST_URL = "https://api.weather.gov/gridpoints/EWX/156,91/forecast"
CAMERA_URL = "https://cctv.austinmobility.io/image/533.jpg"
CAMERA_TITLE = "38th & Duval"
# The weather service asks every client for a name of its own: https://www.weather.gov/documentation/services-web-api
USER_AGENT = "weather-checker (Airflow on atd-data03, Austin Transportation and Public Works)"
HTTP_TIMEOUT_SECONDS = (5, 20)
MAX_FORECAST_BYTES = 1024 * 1024
MAX_PICTURE_BYTES = 20 * 1024 * 1024
CHUNK_BYTES = 64 * 1024

WEATHER_DIR = Path(os.environ.get("AIRFLOW_HOME", "/opt/airflow")) / "weather"
VOLUME = os.environ.get("AIRFLOW_VAR_WEATHER_VOLUME", "airflow_weather")
MOUNT_POINT = "/weather"
# The tasks pass files through the volume, which each host has for itself: all run where the page is shown.
QUEUE = os.environ.get("AIRFLOW_VAR_WEATHER_QUEUE")
# Each run writes into a folder of its own. The web server shows index.html, a link to the page in one of
# them, and the page names the picture beside it.
RUN_PREFIX = "run-"
LINK, PAGE, PICTURE, ORIGINAL = "index.html", "page.html", "camera.jpg", "original"
RUN_MAX_AGE_SECONDS = 3600

REQUIRED_SECRETS = {
    "SECRET": {
        "opitem": "Diagnostic ETL (Weather)",
        "opfield": f"{ENVIRONMENT}.demonstration secret",
    },
}

DOC_MD = f"""
### weather-checker

Writes the platform's weather page. It is the platform's smoke test: a green run means that the
scheduler, a worker, 1Password Connect, Docker for DAGs and the weather volume all work.

| task | needs | when it fails |
|---|---|---|
| `download` | {urlsplit(FORECAST_URL).hostname}, {urlsplit(CAMERA_URL).hostname}, the weather volume | \
one of the two sites is down or changed its answer (the log says which): wait, the next run tries again; \
"Not an address": correct the variable that has it |
| `annotate` | the Docker socket proxy, the annotate image, the weather volume | \
"Permission denied" or "403": the socket proxy; "No such image": run `site.yml`; exit status 65: the camera \
sent something that is no picture |
| `publish` | 1Password Connect, the weather volume | \
the log names vault, item and field: look whether the item has a section for this environment; "no picture": \
it was cleared alone, long after its run; clear the whole run |

Nothing is lost when a run fails: page and picture stay those of the last good one; the next replaces both.
"""


def read_forecast(document: Any) -> str:
    """Return "name: detailedForecast" of the first period of a forecast as api.weather.gov gives it.

    Raises AirflowException when the document has another shape.
    """
    try:
        period = document["properties"]["periods"][0]
        name, forecast = period["name"], period["detailedForecast"]
    except (LookupError, TypeError) as error:
        raise AirflowException(
            f"The forecast has no properties.periods[0] with name and detailedForecast ({error!r})"
        ) from error
    if not (isinstance(name, str) and isinstance(forecast, str) and name.strip() and forecast.strip()):
        raise AirflowException("The forecast's first period has an empty name or detailedForecast")
    return f"{name}: {forecast}"


def fetch(url: str, limit: int) -> bytes:
    """Return what a GET answers, of at most `limit` bytes; of a longer answer no more than that is read.

    Raises requests.RequestException, an HTTP error status included, AirflowException when the answer is
    longer, and AirflowFailException, after which Airflow does not try again, when `url` is no address of a
    web page.
    """
    # Not compressed: a short answer could become a long one.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    try:
        response = requests.get(url, headers=headers, timeout=HTTP_TIMEOUT_SECONDS, stream=True)
    except ValueError as error:  # requests' errors about the address itself
        raise AirflowFailException(f"Not an address of a web page: {url!r} ({error})") from error
    with response:
        response.raise_for_status()
        content = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            content += chunk
            if len(content) > limit:
                raise AirflowException(f"{urlsplit(url).hostname} sends more than {limit} bytes")
    return bytes(content)


def make_run_folder(directory: Path) -> Path:
    """Return a new folder in `directory`, readable by the web server, which is another user."""
    folder = Path(tempfile.mkdtemp(dir=directory, prefix=RUN_PREFIX))
    folder.chmod(0o755)
    return folder


def publish_page(folder: Path, page: str) -> None:
    """Put the page into its run's folder, and show it with its picture in one step.

    Raises AirflowFailException when there is no picture in the folder.
    """
    if not (folder / PICTURE).is_file():
        raise AirflowFailException(
            f"There is no picture in {folder}: clear the whole run, not this task alone"
        )
    (folder / PAGE).write_text(page, encoding="utf-8")
    (folder / PAGE).chmod(0o644)
    link = folder / LINK
    link.unlink(missing_ok=True)
    link.symlink_to(Path(folder.name, PAGE))
    link.replace(folder.parent / LINK)


def remove_old_runs(directory: Path) -> None:
    """Remove what earlier runs left, but for what is shown, and what a run that still goes on can want."""
    link = directory / LINK
    # The page of an earlier version is a file, with its picture beside it.
    shown = link.readlink().parts[0] if link.is_symlink() else PICTURE
    for pattern in (f"{RUN_PREFIX}*", PICTURE, ".camera-original-*"):
        for left in directory.glob(pattern):
            # A run beside this one may be quicker.
            with contextlib.suppress(FileNotFoundError):
                if left.name != shown and time.time() - left.stat().st_mtime > RUN_MAX_AGE_SECONDS:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()


def render_page(
    forecast: str, secret: str, executed_at: pendulum.DateTime, picture: str, picture_taken: str
) -> str:
    """Return the HTML page with the picture at the relative address `picture`; every value is escaped."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return templates.get_template("weather.html.j2").render(
        forecast=forecast,
        secret=secret,
        environment=ENVIRONMENT,
        executed_at=executed_at.in_timezone(TIME_ZONE),
        executed_at_text=executed_at.in_timezone(TIME_ZONE).format(TIME_FORMAT),
        camera_title=CAMERA_TITLE,
        picture=picture,
        picture_taken=picture_taken,
    )


@dag(
    dag_id="weather-checker",
    description="Checks the weather and a street camera, and writes a page about them",
    doc_md=DOC_MD,
    schedule="*/5 * * * *",
    start_date=pendulum.datetime(2023, 4, 10, tz=TIME_ZONE),
    catchup=False,
    # A run that comes too late replaces nothing newer.
    max_active_runs=1,
    dagrun_timeout=pendulum.duration(minutes=10),
    tags=["weather"],
    default_args={
        "owner": "airflow",
        "retries": 2,
        "retry_delay": pendulum.duration(seconds=20),
        "execution_timeout": pendulum.duration(minutes=2),
        "on_failure_callback": task_fail_slack_alert,
        **({"queue": QUEUE} if QUEUE else {}),
    },
)
def weather_checker() -> None:
    """Download, annotate, publish: three tasks, because each costs a worker about two seconds."""

    @task
    def download() -> dict[str, str]:
        """Fetch the forecast and the camera's picture; the picture goes to a folder of the weather volume."""
        remove_old_runs(WEATHER_DIR)
        forecast_url = Variable.get("weather_forecast_url", FORECAST_URL)
        forecast = read_forecast(json.loads(fetch(forecast_url, MAX_FORECAST_BYTES)))
        picture = fetch(Variable.get("weather_camera_url", CAMERA_URL), MAX_PICTURE_BYTES)
        folder = make_run_folder(WEATHER_DIR)
        (folder / ORIGINAL).write_bytes(picture)
        return {
            "forecast": forecast,
            "folder": folder.name,
            "taken": pendulum.now(TIME_ZONE).format(TIME_FORMAT),
        }

    # The upstream task's value, in the fields that Airflow fills in just before the container starts.
    downloaded = "{{ ti.xcom_pull(task_ids='download')['%s'] }}"
    annotate = DockerOperator(
        task_id="annotate",
        doc_md="Puts an icon, the crossing's name and the time on the picture, in a container of its own.",
        image="{{ var.value.weather_annotate_image }}",
        command=[
            f"{MOUNT_POINT}/{downloaded % 'folder'}/{ORIGINAL}",
            f"{MOUNT_POINT}/{downloaded % 'folder'}/{PICTURE}",
            f"--title={CAMERA_TITLE}",
            f"--timestamp={downloaded % 'taken'}",
        ],
        mounts=[Mount(source=VOLUME, target=MOUNT_POINT, type="volume")],
        # Sees the volume and nothing else, as the worker's own user: each may replace the other's files.
        network_mode="none",
        user=f"{os.getuid()}:0",
        api_version="auto",
        auto_remove="force",
        mount_tmp_dir=False,
    )

    @task
    def publish(downloaded: dict[str, str]) -> None:
        """Show page and picture. The secret is fetched here: what a task returns is kept in the database."""
        secret = load_dict(REQUIRED_SECRETS)["SECRET"]
        if not secret:
            raise AirflowException(f"1Password has an empty {REQUIRED_SECRETS['SECRET']}")
        folder = WEATHER_DIR / downloaded["folder"]
        page = render_page(
            downloaded["forecast"],
            secret,
            pendulum.now(TIME_ZONE),
            f"{folder.name}/{PICTURE}",
            downloaded["taken"],
        )
        publish_page(folder, page)
        (folder / ORIGINAL).unlink(missing_ok=True)

    values = download()
    annotate.set_upstream(values)
    annotate >> publish(values)


weather_checker()
