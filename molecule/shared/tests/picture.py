"""Looks at the pixels of an annotated picture: what is drawn where, whatever the camera saw."""

from __future__ import annotations

from PIL import Image, ImageChops

Box = tuple[int, int, int, int]
BRIGHT, DARK = 200, 80
"""What JPEG leaves of white and of black lies well beyond these."""


def white_box(picture: Image.Image, region: Box) -> Box | None:
    """Return the bounding box, in the whole picture, of what is nearly white within the region."""
    red, green, blue = picture.crop(region).split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    found = darkest.point(lambda value: 255 if value > 225 else 0).getbbox()
    if not found:
        return None
    return found[0] + region[0], found[1] + region[1], found[2] + region[0], found[3] + region[1]


def likeness(picture: Image.Image, drawn: Image.Image, region: Box) -> float:
    """Return the share, from 0 to 1, of the letters in `region` of `drawn` that is in the picture.

    Letters are white within black. A white pixel is there when all its colours are bright in the picture, a
    black one when all are dark; pixels of any other colour are not looked at.
    """
    red, green, blue = picture.crop(region).split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue).tobytes()
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue).tobytes()
    letters = drawn.crop(region).tobytes()
    seen = [
        low > BRIGHT if letter == b"\xff\xff\xff" else high < DARK
        for letter, low, high in zip(
            (letters[index : index + 3] for index in range(0, len(letters), 3)),
            darkest,
            brightest,
            strict=True,
        )
        if letter in (b"\xff\xff\xff", b"\x00\x00\x00")
    ]
    assert seen, f"nothing is drawn in {region}"
    return sum(seen) / len(seen)


def same_colour(pixel: tuple[int, ...], colour: tuple[int, ...]) -> bool:
    """Tell whether a pixel has this colour, as far as JPEG lets one say."""
    return all(abs(one - other) <= 32 for one, other in zip(pixel, colour, strict=True))
