"""Names images by what they are made of: an edit makes a new image, an unchanged one is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: image_references
short_description: Work out the full name of every image of a build
description:
  - Takes the definitions of the images that a host builds and returns, for each, C(prefix/name:tag).
  - Images that are not built keep the name that C(external) gives them.
  - The tag is the definition's C(version) and the first 12 digits of a SHA-256 over the files of its
    contexts, its build arguments and the full name of its base, so that a change in a base changes what is
    built on it.
options:
  _input:
    description:
      - Image definitions by name. C(base) is another definition's name, or one of C(external), or any
        other text that stands for what the image begins with. C(contexts) lists files and directories below
        C(root). C(arguments) are the build arguments.
    type: dict
    required: true
  root:
    description: Directory that the contexts are relative to.
    type: path
    required: true
  prefix:
    description: What the names begin with.
    type: str
    required: true
  external:
    description: Full names of images in a registry, by the names that C(base) uses.
    type: dict
    default: {}
"""


def files(path: Path) -> Iterator[Path]:
    """Yield the regular files of a build context in a stable order, without what Python leaves behind."""
    if path.is_file():
        yield path
        return
    for child in sorted(path.rglob("*")):
        if (
            child.is_file()
            and "__pycache__" not in child.parts
            and not child.parent.name.endswith(".egg-info")
        ):
            yield child


def image_references(
    definitions: Mapping[str, Mapping[str, Any]],
    root: str,
    prefix: str,
    external: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the full name of every image, of the external ones too.

    Raises:
        AnsibleFilterError: a context does not exist, or images are built on each other in a circle.
    """
    references = {name: str(value) for name, value in (external or {}).items() if name not in definitions}

    def reference(name: str, below: tuple[str, ...]) -> str:
        if name not in definitions:
            return references.get(name, name)
        if name in below:
            raise AnsibleFilterError(
                f"images are built on each other in a circle: {' -> '.join((*below, name))}"
            )
        if name not in references:
            definition = definitions[name]
            digest = hashlib.sha256(reference(str(definition["base"]), (*below, name)).encode())
            for argument, value in sorted((definition.get("arguments") or {}).items()):
                digest.update(f"\0{argument}={value}".encode())
            for context in definition["contexts"]:
                path = Path(root, str(context))
                if not path.exists():
                    raise AnsibleFilterError(f"image {name}: there is no build context {path}")
                for file in files(path):
                    digest.update(f"\0{file.relative_to(root)}\0{file.stat().st_mode & 0o111}\0".encode())
                    digest.update(file.read_bytes())
            references[name] = f"{prefix}/{name}:{definition['version']}-{digest.hexdigest()[:12]}"
        return references[name]

    for name in definitions:
        reference(name, ())
    return references


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"image_references": image_references}
