"""The DAG `weather-checker`: every five minutes a page with the weather, and the proof that all works.

It uses one of everything that DAGs rely on: the internet, a secret, a Docker container and a shared volume.
"""

from __future__ import annotations

import os
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
MAX_PICTURE_BYTES = 20 * 1024 * 1024

WEATHER_DIR = Path(os.environ.get("AIRFLOW_HOME", "/opt/airflow")) / "weather"
VOLUME = os.environ.get("AIRFLOW_VAR_WEATHER_VOLUME", "airflow_weather")
MOUNT_POINT = "/weather"
ORIGINAL_PREFIX = ".camera-original-"
ORIGINAL_MAX_AGE_SECONDS = 3600

REQUIRED_SECRETS = {
    "SECRET": {
        "opitem": "Diagnostic ETL (Weather)",
        "opfield": f"{ENVIRONMENT}.demonstration secret",
    },
}

DOC_MD = f"""
### weather-checker

Writes the page that HAProxy serves on port 8083. It is the platform's smoke test: a green run means that the
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
the log names vault, item and field: look whether the item has a section for this environment |

Nothing is lost when a run fails: the page keeps the last good one, and the next run replaces it.
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


def fetch(url: str) -> requests.Response:
    """Return the answer to a GET.

    Raises requests.RequestException, an HTTP error status included, and AirflowFailException, after which
    Airflow does not try again, when `url` is no address of a web page.
    """
    try:
        response = requests.get(url, headers={"User-Agent": USER_AGENT}, timeout=HTTP_TIMEOUT_SECONDS)
    except ValueError as error:  # requests' errors about the address itself
        raise AirflowFailException(f"Not an address of a web page: {url!r} ({error})") from error
    response.raise_for_status()
    return response


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, readable by the web server, which is another user."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.close()
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_old_originals(directory: Path) -> None:
    """Remove the pictures that failed runs left behind, once no run that is still going can want them."""
    for original in directory.glob(f"{ORIGINAL_PREFIX}*"):
        # A run beside this one may be quicker, with this file or with its own.
        try:
            if time.time() - original.stat().st_mtime > ORIGINAL_MAX_AGE_SECONDS:
                original.unlink()
        except FileNotFoundError:
            continue


def render_page(forecast: str, secret: str, executed_at: pendulum.DateTime, picture_taken: str) -> str:
    """Return the HTML page; every value is escaped."""
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
        picture_taken=picture_taken,
    )


@dag(
    dag_id="weather-checker",
    description="Checks the weather and a street camera, and writes a page about them",
    doc_md=DOC_MD,
    schedule="*/5 * * * *",
    start_date=pendulum.datetime(2023, 4, 10, tz=TIME_ZONE),
    catchup=False,
    # One run at a time: the page and its picture are of the same run.
    max_active_runs=1,
    dagrun_timeout=pendulum.duration(minutes=10),
    tags=["weather"],
    default_args={
        "owner": "airflow",
        "retries": 2,
        "retry_delay": pendulum.duration(seconds=20),
        "execution_timeout": pendulum.duration(minutes=2),
        "on_failure_callback": task_fail_slack_alert,
    },
)
def weather_checker() -> None:
    """Download, annotate, publish: three tasks, because each costs a worker about two seconds."""

    @task
    def download() -> dict[str, str]:
        """Fetch the forecast and the camera's picture; the picture goes to the weather volume."""
        forecast = read_forecast(fetch(Variable.get("weather_forecast_url", FORECAST_URL)).json())
        picture = fetch(Variable.get("weather_camera_url", CAMERA_URL)).content
        if len(picture) > MAX_PICTURE_BYTES:
            raise AirflowException(
                f"The camera sent {len(picture)} bytes; pictures have less than a tenth of that"
            )
        remove_old_originals(WEATHER_DIR)
        # Runs may overlap, so each has a file of its own.
        with tempfile.NamedTemporaryFile(dir=WEATHER_DIR, prefix=ORIGINAL_PREFIX, delete=False) as file:
            file.write(picture)
        return {
            "forecast": forecast,
            "original": Path(file.name).name,
            "taken": pendulum.now(TIME_ZONE).format(TIME_FORMAT),
        }

    # The upstream task's value, in the fields that Airflow fills in just before the container starts.
    downloaded = "{{ ti.xcom_pull(task_ids='download')['%s'] }}"
    annotate = DockerOperator(
        task_id="annotate",
        doc_md="Puts an icon, the crossing's name and the time on the picture, in a container of its own.",
        image="{{ var.value.weather_annotate_image }}",
        command=[
            f"{MOUNT_POINT}/{downloaded % 'original'}",
            f"{MOUNT_POINT}/camera.jpg",
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
        """Write the page. The secret is fetched here, because what a task returns is kept in the database."""
        secret = load_dict(REQUIRED_SECRETS)["SECRET"]
        if not secret:
            raise AirflowException(f"1Password has an empty {REQUIRED_SECRETS['SECRET']}")
        page = render_page(downloaded["forecast"], secret, pendulum.now(TIME_ZONE), downloaded["taken"])
        write_file(WEATHER_DIR / "index.html", page.encode())
        (WEATHER_DIR / downloaded["original"]).unlink(missing_ok=True)

    values = download()
    annotate.set_upstream(values)
    annotate >> publish(values)


weather_checker()
