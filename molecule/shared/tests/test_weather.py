"""The team's manual check list, part one: the weather DAG runs; its page and picture are fresh and right."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from conftest import Http
from expected import CAMERA_TITLE
from picture import likeness, same_colour, white_box
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, Response

LOCAL = ZoneInfo("America/Chicago")
SAME = 0.999
"""The share of the letters' pixels that has to be there; one digit is about a hundredth of them."""
ICON = 64
MARGIN = 8

Lamp = tuple[tuple[int, int], tuple[int, int, int]]
# As a person sees them in the picture: where each lamp is, and what it shines like.
LAMPS: dict[str, Lamp] = {
    "red": ((55, 22), (226, 42, 42)),
    "amber": ((55, 36), (250, 176, 5)),
    "green": ((55, 50), (38, 186, 84)),
}


@dataclass
class Visit:
    """The page on 8083 in the browser, the picture that came with it, and what the browser found wrong."""

    page: Page
    picture: Response
    complaints: list[str]


@pytest.fixture(scope="module")
def visit(browser: Browser, endpoints: dict[str, str], weather_run: dict[str, Any]) -> Iterator[Visit]:
    """One look at the page after a run of the DAG."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"{message.text} {message.location['url']}")

    context = browser.new_context()
    page = context.new_page()
    page.on("console", note)
    page.on("requestfailed", lambda request: complaints.append(request.url))
    with page.expect_response("**/camera.jpg*") as picture:
        page.goto(f"{endpoints['weather']}/", wait_until="load")
    yield Visit(page, picture.value, complaints)
    context.close()


@pytest.fixture(scope="module")
def page(visit: Visit) -> Page:
    """The page in the browser."""
    return visit.page


@pytest.fixture(scope="module")
def taken(page: Page) -> str:
    """When the picture was taken, as the page says it."""
    caption = page.locator("figcaption").inner_text()
    assert caption.startswith(f"Traffic camera at {CAMERA_TITLE}, ")
    return caption.removeprefix(f"Traffic camera at {CAMERA_TITLE}, ")


@pytest.fixture(scope="module")
def photograph(visit: Visit) -> Image.Image:
    """The picture that the browser shows on the page."""
    return Image.open(io.BytesIO(visit.picture.body())).convert("RGB")


@pytest.fixture(scope="module")
def annotation(photograph: Image.Image, taken: str) -> Image.Image:
    """What the annotating program draws for this title and time, on a grey picture of the same size."""
    from annotate import annotate

    return annotate(Image.new("RGB", photograph.size, (128, 128, 128)), CAMERA_TITLE, taken)


def test_run_succeeds(weather_run: dict[str, Any]) -> None:
    """Scheduler, worker, 1Password, Docker for DAGs and the shared volume: all of it or nothing."""
    assert weather_run["run"]["state"] == "success"


@pytest.mark.parametrize("task", ["download", "annotate", "publish"])
def test_task_succeeds_at_the_first_try(weather_run: dict[str, Any], task: str) -> None:
    """A retry that helps is a defect that hides."""
    [found] = [instance for instance in weather_run["tasks"] if instance["task_id"] == task]
    assert (found["state"], found["try_number"]) == ("success", 1)


def test_page_shows_the_forecast(page: Page, weather_run: dict[str, Any]) -> None:
    """The first period of what the weather service says now: "name: detailedForecast"."""
    assert page.locator("#forecast").inner_text() in weather_run["forecasts"]


def test_page_says_when_this_run_or_a_later_one_wrote_it(page: Page, weather_run: dict[str, Any]) -> None:
    """In the local time of the team."""
    element = page.locator("#executed-at")
    executed = datetime.fromisoformat(element.get_attribute("datetime") or "")
    assert (
        weather_run["started"] - timedelta(seconds=1) <= executed <= datetime.now(UTC) + timedelta(seconds=5)
    )
    local = executed.astimezone(LOCAL)
    assert executed.utcoffset() == local.utcoffset()
    assert element.inner_text() == local.strftime("%A, %B %-d, %Y at %-I:%M:%S %p %Z")


def test_page_shows_the_secret_of_this_environment(
    page: Page, settings: dict[str, str], demonstration: dict[str, str]
) -> None:
    """The vault's value for this environment, which no other environment has."""
    environment = settings["ENVIRONMENT"]
    assert page.locator("#environment").inner_text() == environment
    assert page.locator("#secret").inner_text() == demonstration[environment]
    others = [value for name, value in demonstration.items() if name != environment]
    assert others
    assert demonstration[environment] not in others


@pytest.fixture(scope="module")
def demonstration(http: Http, env_files: dict[str, dict[str, str]]) -> dict[str, str]:
    """The demonstration secret of each environment, from 1Password Connect without this project's code."""
    connect = env_files["onepassword.env"]
    items = f"{connect['OP_CONNECT']}/v1/vaults/{connect['OP_VAULT_ID']}/items"
    headers = {"Authorization": f"Bearer {connect['OP_API_TOKEN']}"}
    found = http(
        "GET", items, headers=headers, params={"filter": 'title eq "Diagnostic ETL (Weather)"'}
    ).json()
    item = http("GET", f"{items}/{found[0]['id']}", headers=headers).json()
    sections = {section["id"]: section["label"] for section in item["sections"]}
    return {
        sections[field["section"]["id"]]: field["value"]
        for field in item["fields"]
        if field["label"] == "demonstration secret"
    }


def test_browser_shows_the_page_without_complaint(visit: Visit) -> None:
    """Nothing is missing, blocked or fetched from elsewhere."""
    assert visit.page.title()
    assert visit.complaints == []


def test_picture_file_is_fresh(visit: Visit) -> None:
    """The server names the time at which the DAG put it there."""
    assert visit.picture.headers["content-type"] == "image/jpeg"
    written = parsedate_to_datetime(visit.picture.headers["last-modified"])
    assert timedelta(seconds=-5) < datetime.now(UTC) - written < timedelta(minutes=10)


def test_browser_shows_the_picture(page: Page, photograph: Image.Image) -> None:
    """Loaded, whole and visible: its size on the page has the picture's proportions."""
    image = page.locator("img#camera")
    assert image.evaluate("image => image.complete && [image.naturalWidth, image.naturalHeight]") == list(
        photograph.size
    )
    box = image.bounding_box()
    assert box is not None
    assert box["width"] > 300
    assert abs(box["width"] / box["height"] - photograph.width / photograph.height) < 0.02
    assert image.get_attribute("alt") == f"Traffic camera at {CAMERA_TITLE}"


def test_picture_was_taken_in_the_last_ten_minutes(taken: str) -> None:
    """What the caption says; the next tests show that the picture itself says the same."""
    clock, _, zone = taken.rpartition(" ")
    moment = datetime.strptime(clock, "%A, %B %d, %Y at %I:%M:%S %p").replace(tzinfo=LOCAL)
    assert moment.tzname() == zone
    assert timedelta(seconds=-5) < datetime.now(UTC) - moment < timedelta(minutes=10)


@pytest.mark.parametrize("lamp", LAMPS)
def test_icon_is_in_the_upper_left_corner(photograph: Image.Image, lamp: str) -> None:
    """Its signal shows red above amber above green where the eye looks for them."""
    position, colour = LAMPS[lamp]
    pixel = photograph.getpixel(position)
    assert isinstance(pixel, tuple)
    assert same_colour(pixel, colour), pixel


def test_icon_is_whole(photograph: Image.Image) -> None:
    """All its 64 by 64 pixels are as they were drawn, but for round corners and what JPEG does to edges."""
    from icon import draw_icon

    icon = draw_icon()
    shown = photograph.crop((MARGIN, MARGIN, MARGIN + ICON, MARGIN + ICON))
    pairs = [(shown.getpixel((x, y)), icon.getpixel((x, y))) for x in range(ICON) for y in range(ICON)]
    solid = [(pixel, drawn[:3]) for pixel, drawn in pairs if drawn[3] == 255]  # type: ignore[index]
    same = sum(same_colour(pixel, drawn) for pixel, drawn in solid)  # type: ignore[arg-type]
    assert len(solid) > 0.9 * ICON**2
    assert same > 0.9 * len(solid)


def test_title_is_centred_at_the_top(photograph: Image.Image) -> None:
    """One line of white letters at the height of the icon's middle, as wide to the left as to the right."""
    beside_icon = 2 * MARGIN + ICON
    box = white_box(photograph, (beside_icon, 0, photograph.width - beside_icon, beside_icon))
    assert box is not None
    left, top, right, bottom = box
    assert abs((left + right) / 2 - photograph.width / 2) <= 4
    assert abs((top + bottom) / 2 - (MARGIN + ICON / 2)) <= 6
    assert 100 < right - left < photograph.width / 2


def test_title_reads_38th_and_duval(photograph: Image.Image, annotation: Image.Image) -> None:
    """Every pixel of these letters is in the picture."""
    beside_icon = 2 * MARGIN + ICON
    region = (beside_icon, 0, photograph.width, beside_icon)
    assert likeness(photograph, annotation, region) > SAME


def test_timestamp_at_the_lower_left_is_the_pictures(
    photograph: Image.Image, annotation: Image.Image
) -> None:
    """The time that the caption says is drawn on this very picture, to the second."""
    region = (0, photograph.height * 2 // 3, photograph.width, photograph.height)
    assert likeness(photograph, annotation, region) > SAME


def test_another_time_would_not_pass(photograph: Image.Image, taken: str) -> None:
    """The test above can tell one second from the next."""
    from annotate import annotate

    seconds = re.search(r":(\d\d) ", taken)
    assert seconds
    other = taken.replace(seconds[0], f":{(int(seconds[1]) + 1) % 60:02} ")
    drawn = annotate(Image.new("RGB", photograph.size, (128, 128, 128)), CAMERA_TITLE, other)
    region = (0, photograph.height * 2 // 3, photograph.width, photograph.height)
    assert likeness(photograph, drawn, region) < SAME
