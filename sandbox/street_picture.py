"""Draws what a street camera would see now: a crossing, lit by the time of day, with moving traffic."""

from __future__ import annotations

import math
import random
from datetime import datetime

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sandbox.forecast import LOCAL

WIDTH, HEIGHT = 1280, 720
HORIZON = 290
VANISHING_X = 660
Color = tuple[int, int, int]

NIGHT_SKY: tuple[Color, Color] = ((10, 14, 34), (38, 40, 62))
DAY_SKY: tuple[Color, Color] = ((88, 142, 208), (196, 216, 232))
DUSK_GLOW: Color = (236, 150, 96)
CAR_COLORS: tuple[Color, ...] = (
    (188, 190, 194),
    (238, 238, 236),
    (34, 36, 40),
    (150, 30, 34),
    (36, 66, 120),
    (84, 92, 84),
)
LAMP: Color = (255, 236, 190)


def street_picture(now: datetime, camera: int = 533) -> Image.Image:
    """Return the view of ``camera`` at ``now`` (aware), RGB, 1280 by 720 pixels, without any text."""
    local = now.astimezone(LOCAL)
    daylight = _daylight(local.hour + local.minute / 60)
    place = random.Random(camera)  # noqa: S311 - scenery, not a secret
    picture = _sky(daylight)
    draw = ImageDraw.Draw(picture)
    _buildings(draw, place, daylight)
    _ground(draw, daylight)
    _trees(draw, place, daylight)
    _traffic(draw, now.timestamp(), daylight)
    _signals(draw, now.timestamp(), daylight)
    return _lens(picture, daylight)


def _daylight(hour: float) -> float:
    """Return how light it is: 0 at night, 1 by day, between them around dawn (6) and dusk (18)."""
    return min(1.0, max(0.0, 0.5 + 1.6 * math.sin((hour - 6) / 12 * math.pi)))


def _mix(dark: Color, light: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(dark, light, strict=True))
    return red, green, blue


def _lit(color: Color, daylight: float) -> Color:
    """Return how ``color`` looks: by night a street lamp leaves about a third of it."""
    return _mix((0, 0, 0), color, 0.34 + 0.66 * daylight)


def _sky(daylight: float) -> Image.Image:
    top, bottom = (_mix(night, day, daylight) for night, day in zip(NIGHT_SKY, DAY_SKY, strict=True))
    twilight = 1 - abs(2 * daylight - 1)
    bottom = _mix(bottom, DUSK_GLOW, 0.7 * twilight)
    shade = Image.linear_gradient("L").resize((WIDTH, HORIZON))
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    picture.paste(
        Image.composite(Image.new("RGB", shade.size, bottom), Image.new("RGB", shade.size, top), shade)
    )
    return picture


def _buildings(draw: ImageDraw.ImageDraw, place: random.Random, daylight: float) -> None:
    x = -20
    while x < WIDTH:
        width, height = place.randint(90, 190), place.randint(50, 190)
        gap = abs(x + width / 2 - VANISHING_X) < 120  # The street needs its opening.
        top = HORIZON - (height // 4 if gap else height)
        wall = place.choice(((158, 128, 104), (186, 176, 160), (128, 110, 100), (112, 120, 130)))
        draw.rectangle((x, top, x + width, HORIZON + 12), fill=_lit(wall, daylight))
        for left in range(x + 10, x + width - 16, 24):
            for upper in range(top + 12, HORIZON - 14, 28):
                lamp_on = place.random() < 0.45 and daylight < 0.5
                glass = LAMP if lamp_on else _lit((92, 112, 128), daylight)
                draw.rectangle((left, upper, left + 12, upper + 16), fill=glass)
        x += width + place.randint(0, 14)


def _ground(draw: ImageDraw.ImageDraw, daylight: float) -> None:
    draw.rectangle((0, HORIZON, WIDTH, HEIGHT), fill=_lit((120, 128, 92), daylight))
    walk, asphalt, paint = (_lit(c, daylight) for c in ((172, 168, 160), (88, 90, 94), (226, 224, 210)))
    _strip(draw, -1.28, 1.28, walk)
    _strip(draw, -1.0, 1.0, asphalt)
    for side in (-0.03, 0.01):
        _strip(draw, side, side + 0.02, _lit((222, 180, 60), daylight))
    for lane in (-0.5, 0.5):
        for dash in range(0, 12, 2):
            _strip(draw, lane - 0.012, lane + 0.012, paint, (dash / 12) ** 2, ((dash + 1) / 12) ** 2)
    # The cross street, and the zebra crossing before it.
    draw.rectangle((0, HORIZON + 46, WIDTH, HORIZON + 92), fill=asphalt)
    for bar in range(-9, 10, 2):
        _strip(draw, bar / 10 - 0.05, bar / 10 + 0.05, paint, 0.27, 0.36)


def _strip(
    draw: ImageDraw.ImageDraw, left: float, right: float, color: Color, far: float = 0.0, near: float = 1.0
) -> None:
    """Paint what lies between two lines that meet in the vanishing point, from ``far`` to ``near``."""
    corners = [_point(left, far), _point(right, far), _point(right, near), _point(left, near)]
    draw.polygon(corners, fill=color)


def _point(across: float, depth: float) -> tuple[float, float]:
    """Return the pixel of a place: ``across`` -1 to 1 from curb to curb, ``depth`` 0 (far) to 1 (near)."""
    y = HORIZON + 8 + (HEIGHT - HORIZON - 8) * depth
    return VANISHING_X + across * (26 + 760 * depth), y


def _trees(draw: ImageDraw.ImageDraw, place: random.Random, daylight: float) -> None:
    for across, depth in ((-1.5, 0.16), (1.45, 0.2), (-1.42, 0.34), (1.5, 0.42), (-1.4, 0.62)):
        x, y = _point(across, depth)
        size = 30 + 190 * depth
        draw.rectangle((x - size / 12, y - size, x + size / 12, y), fill=_lit((82, 62, 46), daylight))
        for _ in range(26):
            dx, dy = place.gauss(0, size / 3), place.gauss(-1.35 * size, size / 4)
            leaf = _mix((38, 66, 32), (92, 128, 62), place.random())
            radius = size / 5
            _disc(draw, x + dx, y + dy, radius, _lit(leaf, daylight))


def _traffic(draw: ImageDraw.ImageDraw, seconds: float, daylight: float) -> None:
    """Draw cars on four lanes: those on the right drive away, those on the left come near."""
    cars = []
    for lane, across in enumerate((-0.75, -0.25, 0.25, 0.75)):
        leaving = across > 0
        period = 11.0 + 2.3 * lane  # Seconds that a car is in the picture.
        for turn in (0, 1):
            trip, progress = divmod(seconds / period + 0.53 * turn + 0.21 * lane, 1)
            driver = random.Random(f"{lane} {turn} {trip}")  # noqa: S311 - scenery, not a secret
            if driver.random() < 0.3:
                continue
            depth = (1 - progress if leaving else progress) ** 2
            cars.append((depth, across, leaving, driver.choice(CAR_COLORS)))
    for depth, across, leaving, color in sorted(cars):
        _car(draw, _point(across, depth), 20 + 190 * depth, _lit(color, daylight), leaving, daylight)


def _car(
    draw: ImageDraw.ImageDraw,
    ground: tuple[float, float],
    width: float,
    color: Color,
    leaving: bool,
    daylight: float,
) -> None:
    x, y = ground
    half, height = width / 2, width * 0.62
    shadow = _lit((48, 48, 52), daylight)
    draw.ellipse((x - half * 1.1, y - height * 0.12, x + half * 1.1, y + height * 0.08), fill=shadow)
    for side in (-1, 1):
        wheel = x + side * half * 0.72
        draw.rectangle((wheel - width * 0.09, y - height * 0.2, wheel + width * 0.09, y), fill=(18, 18, 20))
    roof = (x - half * 0.76, y - height, x + half * 0.76, y - height * 0.4)
    window = (x - half * 0.62, y - height * 0.92, x + half * 0.62, y - height * 0.56)
    body = (x - half, y - height * 0.6, x + half, y - height * 0.1)
    draw.rounded_rectangle(roof, width * 0.12, fill=color)
    draw.rounded_rectangle(window, width * 0.06, fill=_lit((70, 84, 96), daylight))
    draw.rounded_rectangle(body, width * 0.08, fill=color)
    lamp = (214, 36, 30) if leaving else (LAMP if daylight < 0.6 else (232, 232, 226))
    radius = max(1.0, width * 0.07)
    for side in (-1, 1):
        _disc(draw, x + side * half * 0.78, y - height * 0.42, radius, lamp)


def _signals(draw: ImageDraw.ImageDraw, seconds: float, daylight: float) -> None:
    """Hang two traffic signals over the lanes; green for 25 s, yellow for 4 s, red for 21 s."""
    phase = seconds % 50
    lit = 2 if phase < 25 else 1 if phase < 29 else 0
    pole = _lit((96, 100, 104), daylight)
    draw.rectangle((1110, 150, 1124, 560), fill=pole)
    draw.rectangle((560, 158, 1116, 166), fill=pole)
    for x in (640, 860):
        draw.rounded_rectangle((x, 160, x + 30, 240), 5, fill=(30, 30, 26))
        for index, color in enumerate(((235, 48, 40), (246, 196, 48), (52, 214, 120))):
            shown = color if index == lit else _mix((0, 0, 0), color, 0.2)
            _disc(draw, x + 15, 175 + 24 * index, 10, shown)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _lens(picture: Image.Image, daylight: float) -> Image.Image:
    """Soften the picture and add the sensor's noise, stronger by night and new in every picture."""
    strength = 14 + 16 * (1 - daylight)
    noise = Image.effect_noise((WIDTH, HEIGHT), strength).convert("RGB")
    soft = picture.filter(ImageFilter.GaussianBlur(0.8))
    return ImageChops.add(soft, noise, scale=1, offset=-128)
