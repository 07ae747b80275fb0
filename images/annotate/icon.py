"""The icon in the corner of every annotated picture: a street camera on the pole of a traffic signal.

Drawn by this file and no other: original, sharp, and no binary to keep.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

SIZE = 64
"""Width and height of the icon in pixels; all coordinates below are in this grid."""

RED, AMBER, GREEN = (226, 42, 42), (250, 176, 5), (38, 186, 84)
LAMPS = {(47, 14): RED, (47, 28): AMBER, (47, 42): GREEN}
"""Centre of each lamp in the icon's own coordinates, and its colour."""

LAMP_RADIUS = 5
PLATE, HOUSING, STEEL = (16, 32, 48, 255), (36, 40, 44), (168, 176, 184)
CAMERA, HOOD, LENS, GLINT = (240, 244, 248), (200, 208, 216), (12, 20, 28), (96, 176, 255)

OVERSAMPLING = 8
"""Pillow draws without anti-aliasing: draw this many times larger, then shrink."""


def draw_icon() -> Image.Image:
    """Return the icon: RGBA, `SIZE` pixels square, transparent outside its rounded plate."""
    image = Image.new("RGBA", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle(_box(0, 0, 63.9, 63.9), _scaled(10), fill=PLATE)
    _draw_signal(draw)
    _draw_camera(draw)
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _draw_signal(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle(_box(45, 50, 49, 62), fill=STEEL)
    draw.rounded_rectangle(_box(38, 5, 56, 51), _scaled(4), fill=HOUSING, outline=STEEL, width=_scaled(1.25))
    for (x, y), colour in LAMPS.items():
        draw.ellipse(_box(x - LAMP_RADIUS, y - LAMP_RADIUS, x + LAMP_RADIUS, y + LAMP_RADIUS), fill=colour)


def _draw_camera(draw: ImageDraw.ImageDraw) -> None:
    draw.line(_points((22, 32), (22, 43), (38, 43)), fill=STEEL, width=_scaled(2.5), joint="curve")
    draw.polygon(_points((9, 22), (30, 17), (33, 29), (12, 34)), fill=CAMERA)
    draw.polygon(_points((6, 20), (31, 14), (32, 18), (7, 24)), fill=HOOD)
    draw.ellipse(_box(5.5, 22.5, 15.5, 34.5), fill=LENS)
    draw.ellipse(_box(7.5, 25, 11.5, 29), fill=GLINT)


def _scaled(length: float) -> int:
    return round(length * OVERSAMPLING)


def _points(*corners: tuple[float, float]) -> list[tuple[int, int]]:
    return [(_scaled(x), _scaled(y)) for x, y in corners]


def _box(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    return _scaled(left), _scaled(top), _scaled(right), _scaled(bottom)
