"""The options of an operation: the one place that parses them, checks them and knows their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from airflow_release.core.errors import ReleaseError


class _Number(NamedTuple):
    """What a number may be."""

    lowest: int
    highest: int
    unit: str
    example: int


_SECONDS = "whole seconds"
_NUMBERS = {
    "drain_timeout": _Number(0, 7 * 24 * 3600, _SECONDS, 1800),
    "start_timeout": _Number(1, 3600, _SECONDS, 300),
    "confirm_timeout": _Number(1, 24 * 3600, _SECONDS, 900),
    "outage_limit": _Number(1, 24 * 3600, _SECONDS, 900),
    "accept_undecryptable": _Number(0, 1_000_000, "a whole number", 0),
}
_CHOICES = {"on_drain_timeout": ("abort", "terminate")}
_DIGITS = re.compile(r"[0-9]{1,9}")
"""ASCII only, and few enough that `int` takes them: it refuses more than 4300 digits."""
_SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Options:
    """How an operation goes. Every field has the value that holds when the operator says nothing."""

    drain_timeout: int = 1800
    """Seconds that running tasks get to end."""
    on_drain_timeout: str = "abort"
    """What happens to tasks that are left then: `abort` the switch, or `terminate` them."""
    start_timeout: int = 300
    """Seconds that services get to be healthy."""
    confirm_timeout: int = 900
    """Seconds that the smoke test gets, once the new release is up."""
    outage_limit: int = 900
    """Seconds without pages that are acceptable; what is expected to take longer is refused beforehand."""
    accept_undecryptable: int = 0
    """How many connections and variables may be unreadable with the Fernet key."""

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Options:
        """Read what an operator gave, as text or as a number; what is not given keeps its default.

        Raises:
            ReleaseError: with every problem, one on a line, by the names that the operator uses.
        """
        if not isinstance(given, Mapping):
            raise ReleaseError(f"The options are {_show(given)}; a JSON object is expected.")
        known = [field.name for field in fields(cls)]
        problems = [
            f"upgrade_{str(name)[:_SHOWN]} is no option. There are: "
            f"{', '.join(f'upgrade_{option}' for option in known)}."
            for name in given
            if name not in known
        ]
        values: dict[str, Any] = {}
        for name in known:
            if name in given:
                values[name] = _read(name, given[name])
                if values[name] is None or not _in_range(name, values[name]):
                    problems.append(f"upgrade_{name} is {_show(given[name])}; {_expected(name)}")
        if problems:
            raise ReleaseError("\n".join(problems))
        return cls(**values)

    @classmethod
    def load(cls, kept: Mapping[str, Any]) -> Options:
        """Return the options that a journal holds, also one of an earlier version.

        This never fails, since the way back needs it: what cannot be understood counts as not given. A
        number out of range is taken, since an earlier version may have allowed it.
        """
        values = {field.name: _read(field.name, kept.get(field.name)) for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None})


def _read(name: str, value: Any) -> Any:
    """Return a value in its option's type, None when it is of no such type. True is no number."""
    if name in _CHOICES:
        return value if isinstance(value, str) and value in _CHOICES[name] else None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return value if type(value) is int and 0 <= value < 10**9 else None


def _in_range(name: str, value: Any) -> bool:
    return name in _CHOICES or _NUMBERS[name].lowest <= value <= _NUMBERS[name].highest


def _expected(name: str) -> str:
    if name in _CHOICES:
        return f"{' or '.join(_CHOICES[name])} is expected"
    number = _NUMBERS[name]
    verb = "is" if number.unit.startswith("a ") else "are"
    return f"{number.unit} from {number.lowest} to {number.highest} {verb} expected, such as {number.example}"


def _show(value: Any) -> str:
    """Return a value for a message. Python refuses to print the largest numbers and the deepest lists."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "something that is too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
