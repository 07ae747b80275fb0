"""Compares a requirements file, as pip reads it, with the packages of this image.

pip's format: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

import codecs
import importlib.metadata
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTION = re.compile(r"(^|\s)--?[A-Za-z].*$")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NAME_AT_URL = re.compile(r"[\w.-]+\s*(\[[^\]]*\])?\s*@")
_EGG = re.compile(r"[#&]egg=([^&\[]+)")
_ARCHIVE = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")


def missing(path: Path) -> Iterator[str]:
    """Yield a sentence for each line that the image does not satisfy."""
    try:
        text = _decoded(path.read_bytes())
    except (SyntaxError, UnicodeError, LookupError) as error:
        yield f"the file's encoding is not UTF-8, nor one that its first line names: {error}"
        return
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        asked = _OPTION.sub("", _COMMENT.sub("", line)).strip()
        if asked:
            yield from _missing(asked)


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes it
        return content.decode("utf-16")
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)


def _missing(asked: str) -> Iterator[str]:
    """Compare one line. Of an address or a path that names no package nothing can be said."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not _NAME_AT_URL.match(asked) and (_URL.match(asked) or _is_path(asked)):
        asked = _of_address(asked)
        if not asked:
            return
    try:
        requirement = Requirement(asked)
    except InvalidRequirement as error:
        yield f"{asked!r} is not a requirement: {error}"
        return
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        yield f"the running image lacks {asked}: build and deploy the image first"
        return
    if requirement.specifier and not requirement.specifier.contains(version, prereleases=True):
        yield f"the running image has {requirement.name} {version}, not {asked}"


def _is_path(asked: str) -> bool:
    """Say whether pip takes it for a path: it has a slash before any marker, or is an archive's name."""
    place = asked.partition(";")[0].partition(" ")[0]
    return "/" in place or place.startswith(".") or place.endswith(_ARCHIVE)


def _of_address(asked: str) -> str:
    """Return the requirement that a wheel's file name or an address' `#egg=` states, or nothing."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    place, _, marker = asked.partition(" ;")
    marker = f"; {marker}" if marker else ""
    if egg := _EGG.search(place):
        return egg.group(1).strip() + marker
    file = place.split("#")[0].split("?")[0].strip().rpartition("/")[2]
    try:
        name, version, _, _ = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return ""
    return f"{name}=={version}{marker}"
