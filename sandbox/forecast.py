"""Makes a week's forecast in the JSON form of api.weather.gov, another one each hour."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone
from typing import Any

# Central standard time all year: slim systems have no time zone data, and an hour matters to nobody here.
LOCAL = timezone(timedelta(hours=-6))
PERIODS = 14
DAWN, DUSK = 6, 18

# Sky, as the icon names it: (short forecast by day, by night, opening of the detailed one, chances of rain).
SKIES: dict[str, tuple[str, str, str, tuple[int, ...]]] = {
    "skc": ("Sunny", "Clear", "{sky}", (0,)),
    "few": ("Mostly Sunny", "Mostly Clear", "{sky}", (0, 10)),
    "sct": ("Partly Sunny", "Partly Cloudy", "{sky}", (0, 10, 20)),
    "bkn": ("Mostly Cloudy", "Mostly Cloudy", "{sky}", (10, 20)),
    "rain_showers": (
        "Chance Showers And Thunderstorms",
        "Showers Likely",
        "A chance of showers and thunderstorms",
        (30, 40, 60),
    ),
    "fog": ("Patchy Fog then Mostly Sunny", "Patchy Fog", "Patchy fog", (0, 10)),
}
WINDS = ("N", "NE", "E", "SE", "S", "SSE", "SSW", "SW", "W", "NNW")


def forecast(office: str, grid: str, now: datetime) -> dict[str, Any]:
    """Return the forecast for grid point ``office``/``grid`` as it would be issued at ``now`` (aware)."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    weather = random.Random(f"{office} {grid} {hour.isoformat()}")  # noqa: S311 - scenery, not a secret
    start = hour.astimezone(LOCAL)
    periods = []
    for number in range(1, PERIODS + 1):
        end = _next_turn(start)
        periods.append(_period(number, start, end, weather))
        start = end
    return {
        "@context": ["https://geojson.org/geojson-ld/geojson-context.jsonld", {"@version": "1.1"}],
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": [
                [[-97.74, 30.28], [-97.73, 30.30], [-97.71, 30.30], [-97.71, 30.28], [-97.74, 30.28]]
            ],
        },
        "properties": {
            "units": "us",
            "forecastGenerator": "BaselineForecastGenerator",
            "generatedAt": now.isoformat(timespec="seconds"),
            "updateTime": hour.isoformat(),
            "validTimes": f"{(hour - timedelta(hours=6)).isoformat()}/P7DT19H",
            "elevation": {"unitCode": "wmoUnit:m", "value": 199.9488},
            "periods": periods,
        },
    }


def _next_turn(moment: datetime) -> datetime:
    """Return when day turns to night, or night to day, next."""
    if moment.hour < DAWN:
        return moment.replace(hour=DAWN)
    if moment.hour < DUSK:
        return moment.replace(hour=DUSK)
    return moment.replace(hour=DAWN) + timedelta(days=1)


def _period(number: int, start: datetime, end: datetime, weather: random.Random) -> dict[str, Any]:
    day = DAWN <= start.hour < DUSK
    icon = weather.choice(list(SKIES))
    by_day, by_night, opening, chances = SKIES[icon]
    short = by_day if day else by_night
    rain = weather.choice(chances)
    # Austin's mean highs run from 62 F in January to 97 F in August.
    warmest = 79.5 - 17.5 * abs(start.month - 7.5) / 5.5 + 17.5 * (1 - abs(start.month - 7.5) / 5.5)
    temperature = round(warmest - (0 if day else 20) + weather.uniform(-6, 6))
    wind, gust = weather.choice(WINDS), weather.randrange(5, 20, 5)
    speed = f"{gust} to {gust + 5} mph" if weather.random() < 0.7 else f"{gust} mph"
    sentences = [
        f"{opening.format(sky=short.capitalize())}, with a {'high' if day else 'low'} near {temperature}.",
        f"{_spelled(wind)} wind {speed.replace(' mph', '')} mph.",
    ]
    if rain >= 20:
        sentences.append(f"Chance of precipitation is {rain}%.")
    return {
        "number": number,
        "name": _name(number, start, day),
        "startTime": start.isoformat(),
        "endTime": end.isoformat(),
        "isDaytime": day,
        "temperature": temperature,
        "temperatureUnit": "F",
        "temperatureTrend": "",
        "probabilityOfPrecipitation": {"unitCode": "wmoUnit:percent", "value": rain},
        "windSpeed": speed,
        "windDirection": wind,
        "icon": f"https://api.weather.gov/icons/land/{'day' if day else 'night'}/{icon}?size=medium",
        "shortForecast": short,
        "detailedForecast": " ".join(sentences),
    }


def _name(number: int, start: datetime, day: bool) -> str:
    if number == 1:
        if not day:
            return "Overnight" if start.hour < DAWN else "Tonight"
        return "Today" if start.hour < 12 else "This Afternoon"
    if number == 2 and not day:
        return "Tonight"
    return f"{start:%A}" if day else f"{start:%A} Night"


def _spelled(wind: str) -> str:
    """Spell a compass point as forecasters do: SE is "Southeast", NNW "North northwest"."""
    names = {"N": "north", "S": "south", "E": "east", "W": "west"}
    last = "".join(names[letter] for letter in wind[-2:])
    return (f"{names[wind[0]]} {last}" if len(wind) == 3 else last).capitalize()
