"""The page that weather-checker publishes, as a browser's parser sees it, and the forecast in it."""

from html.parser import HTMLParser

import pendulum
import pytest

HOSTILE = "<script>alert('x')</script> \"quoted\" & 'more' {{ 7 * 7 }}"
EXECUTED_AT = pendulum.datetime(2026, 7, 1, 17, 5, 9, tz="UTC")


class Page(HTMLParser):
    """Collects text and attributes of every element that has an id, and the names of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: dict[str, dict[str, str]] = {}
        self.texts: dict[str, str] = {}
        self.names: list[str] = []
        self.addresses: list[str] = []
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "data", "action")]
        self._open = found.get("id")
        if self._open:
            assert self._open not in self.ids, f"two elements with the id {self._open}"
            self.ids[self._open] = {"tag": tag, **found}
            self.texts[self._open] = ""

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.texts[self._open] += data


def render(**values):
    from weather_checker import render_page

    arguments = {"forecast": "Tonight: Clear.", "secret": "a secret", "executed_at": EXECUTED_AT}
    picture = {"picture": "run-1/camera.jpg", "picture_taken": "five past twelve"}
    text = render_page(**{**arguments, **picture, **values})
    return text, Page(text)


def test_page_holds_everything_under_its_id():
    _, page = render()
    assert page.texts["forecast"] == "Tonight: Clear."
    assert page.texts["secret"] == "a secret"
    assert page.texts["environment"] == "development"
    assert page.texts["executed-at"] == "Wednesday, July 1, 2026 at 12:05:09 PM CDT"
    assert page.ids["executed-at"]["tag"] == "time"
    assert page.ids["executed-at"]["datetime"] == "2026-07-01T12:05:09-05:00"
    assert page.ids["camera"]["tag"] == "img"
    assert page.ids["camera"]["src"] == "run-1/camera.jpg"
    assert "38th & Duval" in page.ids["camera"]["alt"]


@pytest.mark.parametrize("name", ["forecast", "secret"])
def test_values_are_escaped(name):
    text, page = render(**{name: HOSTILE})
    assert page.texts[name] == HOSTILE
    assert "script" not in page.names
    assert "<script" not in text


def test_page_needs_no_other_server():
    text, page = render()
    assert page.addresses == [page.ids["camera"]["src"]]
    assert "url(" not in text
    assert "@import" not in text


def test_missing_value_is_an_error_and_not_an_empty_place():
    from jinja2 import UndefinedError
    from weather_checker import render_page

    with pytest.raises((UndefinedError, AttributeError)):
        render_page("Tonight: Clear.", "a secret", None, "", "")


def test_first_period_is_the_forecast():
    from weather_checker import read_forecast

    periods = [
        {"name": "This Afternoon", "detailedForecast": "Sunny, with a high near 97."},
        {"name": "Tonight", "detailedForecast": "Mostly clear."},
    ]
    assert (
        read_forecast({"properties": {"periods": periods}}) == "This Afternoon: Sunny, with a high near 97."
    )


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "text",
        {},
        {"properties": None},
        {"properties": {"periods": []}},
        {"properties": {"periods": None}},
        {"properties": {"periods": [None]}},
        {"properties": {"periods": [{"name": "Tonight"}]}},
        {"properties": {"periods": [{"detailedForecast": "Clear."}]}},
        {"properties": {"periods": [{"name": "Tonight", "detailedForecast": ""}]}},
        {"properties": {"periods": [{"name": None, "detailedForecast": "Clear."}]}},
        # What the service really sends when it is out of order.
        {"title": "Unexpected Problem", "status": 500, "detail": "An unexpected problem has occurred."},
    ],
    ids=str,
)
def test_forecast_of_another_shape_is_an_error_that_says_so(document):
    from airflow.exceptions import AirflowException
    from weather_checker import read_forecast

    with pytest.raises(AirflowException, match="The forecast"):
        read_forecast(document)
