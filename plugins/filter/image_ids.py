"""Filter: the ids of images by name, of what `docker_image_info` says of a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: image_ids
author: The data platform team
short_description: Ids of images by their names
description:
  - Takes the list C(images) of M(community.docker.docker_image_info), and returns the id of each wanted image
    that is in it.
  - An image may have several names, and a name may have moved to another image. So names alone do not say
    that two hosts have the same image.
options:
  _input:
    description: What C(docker_image_info) returned as C(images).
    type: list
    elements: dict
    required: true
  names:
    description: The wanted images' names, with their tags.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
ids: "{{ found.images | image_ids(['haproxy:2.6-bookworm']) }}"
"""

RETURN = r"""
_value:
  description: Ids by name. An image that the host does not have is not in it.
  type: dict
"""


def image_ids(images: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, str]:
    """Return the id of each image of these names that is there."""
    ids = {tag: str(image["Id"]) for image in images for tag in image.get("RepoTags") or []}
    return {name: ids[name] for name in names if name in ids}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return them by name."""
        return {"image_ids": image_ids}
