"""What a person sees on an annotated picture, checked pixel by pixel."""

from collections.abc import Iterator

import icon
import pytest
from annotate import MARGIN, AnnotationError, annotate
from PIL import Image, ImageChops

TITLE = "38th & Duval"
TIMESTAMP = "Sunday, November 22, 2026 at 05:33 AM CST"
ICON_SIZE = 64
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]


def plain(colour: Colour, size: tuple[int, int] = (704, 480)) -> Image.Image:
    return Image.new("RGB", size, colour)


def changed_box(before: Image.Image, after: Image.Image, region: Box) -> Box:
    """Return the bounding box, in the whole picture, of what differs within `region`."""
    found = ImageChops.difference(before.crop(region), after.crop(region)).getbbox()
    assert found, f"nothing was drawn in {region}"
    return found[0] + region[0], found[1] + region[1], found[2] + region[0], found[3] + region[1]


def colours(image: Image.Image, region: Box) -> Iterator[Colour]:
    part = image.crop(region)
    for y in range(part.height):
        for x in range(part.width):
            pixel = part.getpixel((x, y))
            assert isinstance(pixel, tuple)
            yield pixel[0], pixel[1], pixel[2]


def close(one: Colour, other: Colour) -> bool:
    return all(abs(a - b) <= 12 for a, b in zip(one, other, strict=True))


def seen(image: Image.Image, position: tuple[int, int], colour: Colour) -> bool:
    x, y = position
    return all(close(pixel, colour) for pixel in colours(image, (x, y, x + 1, y + 1)))


@pytest.fixture(params=[(255, 255, 255), (0, 0, 0), (128, 128, 128), (90, 140, 200)], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[Image.Image, Image.Image]:
    """A picture before and after, on backgrounds from snow to night."""
    before = plain(request.param)
    return before, annotate(before, TITLE, TIMESTAMP)


def test_icon_is_64_pixels_square_and_has_round_corners() -> None:
    image = icon.draw_icon()
    assert image.size == (64, 64)
    assert image.getpixel((0, 0)) == (0, 0, 0, 0)
    assert image.getchannel("A").getbbox() == (0, 0, 64, 64)


@pytest.mark.parametrize(("centre", "colour"), icon.LAMPS.items(), ids=["red", "amber", "green"])
def test_icon_shows_a_signal_with_three_lamps(centre: tuple[int, int], colour: Colour) -> None:
    assert seen(icon.draw_icon(), centre, colour)


def test_icon_shows_a_white_camera_with_a_lens_to_the_left_of_the_signal() -> None:
    image = icon.draw_icon()
    assert seen(image, (22, 26), icon.CAMERA)
    assert seen(image, (12, 31), icon.LENS)


def test_icon_is_at_the_upper_left_as_it_was_drawn(pair: tuple[Image.Image, Image.Image]) -> None:
    _, after = pair
    drawn = icon.draw_icon()
    opaque = drawn.getchannel("A").point(lambda alpha: 255 if alpha == 255 else 0)
    there = after.crop((MARGIN, MARGIN, MARGIN + ICON_SIZE, MARGIN + ICON_SIZE))
    difference = ImageChops.difference(there, drawn.convert("RGB"))
    assert Image.composite(difference, Image.new("RGB", difference.size), opaque).getbbox() is None
    assert opaque.histogram()[255] > 0.9 * ICON_SIZE**2


def test_title_is_centred_at_the_top(pair: tuple[Image.Image, Image.Image]) -> None:
    before, after = pair
    left_of_icon = 2 * MARGIN + ICON_SIZE
    left, top, right, bottom = changed_box(before, after, (left_of_icon, 0, after.width, after.height // 3))
    assert abs((left + right) / 2 - after.width / 2) <= 2
    assert top >= MARGIN / 2
    assert bottom <= 2 * MARGIN + ICON_SIZE
    assert right - left > 100


def test_timestamp_is_at_the_lower_left(pair: tuple[Image.Image, Image.Image]) -> None:
    before, after = pair
    region = (0, after.height * 2 // 3, after.width, after.height)
    left, top, right, bottom = changed_box(before, after, region)
    assert MARGIN <= left <= 3 * MARGIN
    assert after.height - 3 * MARGIN <= bottom <= after.height
    assert top > after.height * 0.85
    assert right < after.width


def test_texts_are_readable(pair: tuple[Image.Image, Image.Image]) -> None:
    """White letters are enclosed by black, whatever is behind them."""
    before, after = pair
    region = (2 * MARGIN + ICON_SIZE, 0, after.width, after.height // 3)
    box = changed_box(before, after, region)
    pixels = list(colours(after, box))
    assert sum(close(pixel, (255, 255, 255)) for pixel in pixels) > 0.1 * len(pixels)
    assert sum(close(pixel, (0, 0, 0)) for pixel in pixels) > 0.1 * len(pixels)


def test_rest_of_the_picture_is_untouched(pair: tuple[Image.Image, Image.Image]) -> None:
    before, after = pair
    middle = (0, 2 * MARGIN + ICON_SIZE, after.width, int(after.height * 0.85))
    assert ImageChops.difference(before.crop(middle), after.crop(middle)).getbbox() is None


@pytest.mark.parametrize("size", [(320, 180), (320, 240), (352, 240), (1280, 720), (1920, 1080)], ids=str)
def test_annotations_keep_apart_in_every_size(size: tuple[int, int]) -> None:
    before = plain((128, 128, 128), size)
    after = annotate(before, TITLE, TIMESTAMP)
    title = changed_box(before, after, (MARGIN + ICON_SIZE + 1, 0, size[0], MARGIN + ICON_SIZE))
    stamp = changed_box(before, after, (0, MARGIN + ICON_SIZE + 1, *size))
    assert title[0] > MARGIN + ICON_SIZE + 1
    assert title[2] < size[0] - MARGIN
    assert title[3] < stamp[1]
    assert stamp[2] < size[0]


def test_texts_change_the_picture() -> None:
    before = plain((128, 128, 128))
    one = annotate(before, TITLE, "05:33")
    assert ImageChops.difference(one, annotate(before, TITLE, "05:34")).getbbox()
    assert ImageChops.difference(one, annotate(before, "39th & Duval", "05:33")).getbbox()


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(AnnotationError, match="120x90 pixels; at least 320x180"):
        annotate(plain((0, 0, 0), (120, 90)), TITLE, TIMESTAMP)


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(AnnotationError, match="too long"):
        annotate(plain((0, 0, 0)), "38th & Duval " * 30, TIMESTAMP)
