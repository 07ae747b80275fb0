"""The forecast and the camera behave like the real ones where the weather DAG can tell."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest
from flask.testing import FlaskClient
from PIL import Image, ImageChops, ImageFilter, ImageStat

from sandbox.feeds import create_app
from sandbox.forecast import forecast
from sandbox.street_picture import street_picture

FORECAST = "/gridpoints/EWX/156,91/forecast"
CAMERA = "/image/533.jpg"
NOON, MIDNIGHT = datetime(2026, 3, 4, 18, tzinfo=UTC), datetime(2026, 3, 4, 6, tzinfo=UTC)


@pytest.fixture
def feeds() -> FlaskClient:
    return create_app().test_client()


def test_forecast_has_the_shape_of_noaas(feeds: FlaskClient) -> None:
    response = feeds.get(FORECAST, headers={"User-Agent": "test"})
    assert response.mimetype == "application/geo+json"
    document = response.get_json(force=True)
    periods = document["properties"]["periods"]
    assert [period["number"] for period in periods] == list(range(1, 15))
    for period in periods:
        assert period["name"]
        assert str(period["temperature"]) in period["detailedForecast"]
        assert period["temperatureUnit"] == "F"
        assert isinstance(period["isDaytime"], bool)
    for earlier, later in pairwise(periods):
        assert earlier["endTime"] == later["startTime"]
        assert earlier["isDaytime"] != later["isDaytime"]


@pytest.mark.parametrize("agent", ["", "  "])
def test_forecast_refuses_a_client_without_name(feeds: FlaskClient, agent: str) -> None:
    response = feeds.get(FORECAST, headers={"User-Agent": agent})
    assert (response.status_code, response.mimetype) == (403, "application/problem+json")


@pytest.mark.parametrize("path", ["/gridpoints/ewx/156,91/forecast", "/gridpoints/EWX/156/forecast"])
def test_forecast_knows_only_grid_points(feeds: FlaskClient, path: str) -> None:
    assert feeds.get(path, headers={"User-Agent": "test"}).status_code == 404


@pytest.mark.parametrize(
    ("hour", "name"), [(7, "Overnight"), (14, "Today"), (20, "This Afternoon"), (1, "Tonight")]
)
def test_first_period_is_named_by_the_time_of_day(hour: int, name: str) -> None:
    moment = datetime(2026, 3, 4, hour, 30, tzinfo=UTC)
    period = forecast("EWX", "156,91", moment)["properties"]["periods"][0]
    assert period["name"] == name
    assert datetime.fromisoformat(period["startTime"]) <= moment < datetime.fromisoformat(period["endTime"])


def test_forecast_varies_from_hour_to_hour_only() -> None:
    def first(moment: datetime) -> str:
        return str(forecast("EWX", "156,91", moment)["properties"]["periods"][0]["detailedForecast"])

    hours = [NOON + timedelta(hours=number) for number in range(24)]
    assert len({first(hour) for hour in hours}) > 12
    assert all(first(hour) == first(hour + timedelta(minutes=59)) for hour in hours)


def test_camera_gives_a_fresh_picture_each_time(feeds: FlaskClient) -> None:
    first, second = feeds.get(CAMERA), feeds.get(CAMERA)
    assert first.mimetype == "image/jpeg"
    assert first.data != second.data
    taken = parsedate_to_datetime(first.headers["Last-Modified"])
    assert abs(datetime.now(UTC) - taken) < timedelta(seconds=10)
    with Image.open(io.BytesIO(first.data)) as picture:
        assert (picture.size, picture.mode) == ((1280, 720), "RGB")


def test_pictures_are_lit_by_the_time_of_day() -> None:
    noon, midnight = (
        ImageStat.Stat(street_picture(moment).convert("L")).mean[0] for moment in (NOON, MIDNIGHT)
    )
    assert noon > 2 * midnight


def test_cars_move() -> None:
    """Seen through a blur, which removes the sensor's noise."""
    blur = ImageFilter.GaussianBlur(6)
    pictures = [street_picture(NOON + timedelta(seconds=s)).convert("L").filter(blur) for s in (0, 0, 4)]
    still, moved = (ImageChops.difference(pictures[0], other).getextrema()[1] for other in pictures[1:])
    assert isinstance(still, int)
    assert isinstance(moved, int)
    assert moved > 3 * still
