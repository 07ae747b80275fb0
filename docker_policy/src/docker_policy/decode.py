"""Strict decoding. A rule takes a decoded value and its field's name, and returns the value to send.

JSON is stricter here than in Python and in Go, because the two differ: Go merges objects that repeat a key
and ignores the case of keys, and Python does neither. Nothing is passed on that no rule describes.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from docker_policy.errors import NO_SETTING, RefusedError, malformed, printable

Rule = Callable[[Any, str], Any]

LONGEST_INTEGER = 19
"""Digits of the largest number that fits in 64 bits."""

_QUERY = re.compile(
    r"[!-:<-~]*"
)  # printable ASCII without blanks, and without the semicolon that once separated, too


def document(body: bytes) -> Any:
    """Return the one JSON document that is the whole of `body`.

    Raises:
        RefusedError: it is not UTF-8 or not JSON, repeats a key, or has a number that is no integer.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_no_number,
            parse_int=_integer,
        )
    except UnicodeDecodeError:
        raise malformed("it is not UTF-8", "body") from None
    except (ValueError, RecursionError) as error:
        raise malformed(f"it is not one JSON document: {type(error).__name__}", "body") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise malformed("the key is there more than once", key)
        found[key] = value
    return found


def _no_number(text: str) -> Any:
    raise malformed(f"{printable(text, 20)} is not an integer", "body")


def _integer(text: str) -> int:
    if len(text.removeprefix("-")) > LONGEST_INTEGER:
        raise malformed("a number has too many digits", "body")
    return int(text)


def query(text: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return the parameters of a query, each as its rule builds it.

    Raises:
        RefusedError: it is malformed, repeats a parameter, or has one without a rule.
    """
    if not text:
        return {}
    try:
        if not _QUERY.fullmatch(text):
            raise ValueError
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20
        )
    except ValueError:
        raise malformed("it is malformed", "query") from None
    found: dict[str, Any] = record(rules)(_object(pairs), "")
    return found


def record(fields: Mapping[str, Rule], required: Iterable[str] = ()) -> Rule:
    """Accept an object with these keys and no others. Null counts as absent."""

    def rule(value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise malformed("an object is expected", field or "body")
        built = {}
        for key, item in value.items():
            name = f"{field}.{key}" if field else key
            if key not in fields:
                raise RefusedError(f"DAGs may not set this; {NO_SETTING}", field=name)
            if item is not None:
                built[key] = fields[key](item, name)
        for key in required:
            if key not in built:
                raise malformed("it is missing", f"{field}.{key}" if field else key)
        return built

    return rule


def listing(each: Rule, most: int) -> Rule:
    """Accept a list of at most `most` values."""

    def rule(value: Any, field: str) -> list[Any]:
        if not isinstance(value, list):
            raise malformed("a list is expected", field)
        if len(value) > most:
            raise RefusedError(f"there are {len(value)} entries; {most} are allowed", field=field)
        return [each(item, f"{field}[{index}]") for index, item in enumerate(value)]

    return rule


def mapping(key: Rule, each: Rule) -> Rule:
    """Accept an object with any keys of a form."""

    def rule(value: Any, field: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise malformed("an object is expected", field)
        return {key(name, f"{field}.{name}"): each(item, f"{field}.{name}") for name, item in value.items()}

    return rule


def text(form: str = r"[^\0]*", expected: str = "text") -> Rule:
    """Accept a text that matches `form` as a whole; `expected` describes the form."""
    pattern = re.compile(form, re.DOTALL)

    def rule(value: Any, field: str) -> str:
        if not isinstance(value, str) or not _is_unicode(value):
            raise malformed("text is expected", field)
        if not pattern.fullmatch(value):
            raise RefusedError(f"{expected} is expected", field=field)
        return value

    return rule


def _is_unicode(value: str) -> bool:
    """Tell half a surrogate pair, which is no character: Go would put another one in its place."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def one_of(choices: Mapping[str, Any], hint: str) -> Rule:
    """Accept one of these texts, and send what it stands for."""

    def rule(value: Any, field: str) -> Any:
        if not isinstance(value, str):
            raise malformed("text is expected", field)
        if value not in choices:
            raise RefusedError(f'"{printable(value)}" is refused: {hint}', field=field)
        return choices[value]

    return rule


def flag(value: Any, field: str) -> bool:
    """Accept true and false."""
    if not isinstance(value, bool):
        raise malformed("true or false is expected", field)
    return value


def no(value: Any, field: str) -> bool:
    """Accept false."""
    if flag(value, field):
        raise RefusedError(f"DAGs may not ask for this; {NO_SETTING}", field=field)
    return False


def empty(kind: type) -> Rule:
    """Accept an empty object or list."""

    def rule(value: Any, field: str) -> Any:
        if not isinstance(value, kind):
            raise malformed(f"an empty {'list' if kind is list else 'object'} is expected", field)
        if value:
            raise RefusedError(f"it has to be empty; {NO_SETTING}", field=field)
        return kind()

    return rule


def integer(least: int, most: int, setting: str = "") -> Rule:
    """Accept an integer within limits; `setting` is the inventory's that gives the upper one."""

    def rule(value: Any, field: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise malformed("an integer is expected", field)
        if not least <= value <= most:
            hint = f": {setting} in the inventory sets the limit" if setting else ""
            raise RefusedError(f"{value} is not from {least} to {most}{hint}", field=field)
        return value

    return rule


def switch(value: Any, field: str) -> bool:
    """Accept what clients write for true and false in a query."""
    choices = {"1": True, "true": True, "True": True, "0": False, "false": False, "False": False}
    return bool(one_of(choices, "1 or 0 is expected")(value, field))


def switched_off(value: Any, field: str) -> bool:
    """Accept what clients write for false in a query."""
    return no(switch(value, field), field)


def digits(least: int, most: int) -> Rule:
    """Accept an integer in a query."""
    form = text(rf"-?[0-9]{{1,{LONGEST_INTEGER}}}", "an integer")
    within = integer(least, most)
    return lambda value, field: within(int(form(value, field)), field)
