"""Names of images, and addresses of registries.

The grammar is https://pkg.go.dev/github.com/distribution/reference. An image is always named to Docker in
full: a short name such as `beef` could be the beginning of another image's id.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from docker_policy.errors import RefusedError, malformed, printable

HUB = "docker.io"
HUB_ADDRESS = "https://index.docker.io/v1/"
_HUB_NAMES = {HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_ADDRESS = re.compile(rf"(?:https?://)?(?P<host>{_HOST})(?:/[A-Za-z0-9._/:-]*)?")
LONGEST_NAME = 255


@dataclass(frozen=True)
class Reference:
    """An image's full name."""

    name: str
    """Registry and repository."""
    tag: str
    """Empty where there is a digest only."""
    digest: str = ""

    def __str__(self) -> str:
        """Return it as Docker takes it."""
        return self.name + (self.tag and f":{self.tag}") + (self.digest and f"@{self.digest}")


def reference(value: str, field: str, tag: str = "") -> Reference:
    """Return what an image's name stands for. A tag, or digest, may be given apart, as in a pull.

    Raises:
        RefusedError: it is none, or has two tags.
    """
    name, _, digest = value.partition("@")
    repository, colon, own_tag = name.rpartition(":")
    if not colon or "/" in own_tag:
        repository, colon, own_tag = name, "", ""
    if value.endswith("@") or (colon and not own_tag):
        raise malformed(f'"{printable(value)}" has an empty tag', field)
    if tag and (own_tag or digest):
        raise malformed("the image has a tag twice", field)
    if _DIGEST.fullmatch(tag):
        digest, tag = tag, ""
    tag = tag or own_tag or ("" if digest else "latest")
    full = _full_name(repository) if len(repository) <= LONGEST_NAME and _NAME.fullmatch(repository) else ""
    if not full or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest)):
        raise malformed(f'"{printable(value)}" is not the name of an image', field)
    return Reference(full, tag, digest)


def _full_name(repository: str) -> str:
    """Return the repository with its registry, which is Docker Hub where the name has none."""
    host, slash, path = repository.partition("/")
    if not slash or not (set(".:") & set(host) or host == "localhost" or host != host.lower()):
        host, path = HUB, repository
    if host in _HUB_NAMES:
        host, path = HUB, path if "/" in path else f"library/{path}"
    return f"{host}/{path}"


class Images:
    """The images that DAGs may use, by patterns such as `atddocker/*` or `ghcr.io/city/etl:production`."""

    def __init__(self, patterns: Sequence[str], setting: str) -> None:
        """Compile the patterns; `setting` is their name in the inventory.

        Raises:
            ValueError: a text is no pattern.
        """
        self._setting = setting
        self._patterns = [_compile(pattern) for pattern in patterns]

    def check(self, value: str, field: str, tag: str = "") -> Reference:
        """Return the image's full name.

        Raises:
            RefusedError: it is malformed, or no pattern matches it.
        """
        found = reference(value, field, tag)
        for name, tags in self._patterns:
            if name.fullmatch(found.name) and (
                tags is None or (not found.digest and tags.fullmatch(found.tag))
            ):
                return found
        raise RefusedError(
            f'DAGs may not use the image "{printable(str(found))}": no pattern of {self._setting} in the '
            "inventory matches it",
            field=field,
        )


def _compile(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """Return a pattern's expressions for names and for tags. A star stands for any text without a slash."""
    repository, colon, tag = pattern.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = pattern, ""
    try:
        reference(pattern.replace("*", "x"), "")
    except RefusedError:
        repository = ""
    if not repository or "*" in _full_name(repository).partition("/")[0]:
        raise ValueError(f"{pattern!r} is not a pattern for images; `city/*` or `city/etl:production` is one")
    return _glob(_full_name(repository)), _glob(tag) if tag else None


def _glob(text: str) -> re.Pattern[str]:
    return re.compile("[^/]*".join(map(re.escape, text.split("*"))))


def registry(address: str) -> str:
    """Return the registry of an address: its host in lower case, or `docker.io`; "" where it is malformed."""
    match = _ADDRESS.fullmatch(address) if len(address) <= LONGEST_NAME else None
    if not match:
        return ""
    host = match["host"].lower()
    return HUB if host in _HUB_NAMES else host


def registry_address(name: str) -> str:
    """Return the address at which Docker logs in."""
    return HUB_ADDRESS if name == HUB else f"https://{name}"
