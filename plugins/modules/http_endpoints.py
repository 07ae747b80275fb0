#!/usr/bin/python
"""Ansible module: ask several addresses in one call; ansible.builtin.uri takes one for each."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: http_endpoints
author: The data platform team
short_description: Ask several HTTP addresses and check how each answers
description:
  - Sends a GET to each address from the host, one after the other, and fails unless each answers as it
    should. It follows no redirect.
  - The message of a failure names every address that answered otherwise, and how.
options:
  endpoints:
    description: What to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      url:
        description: The address.
        type: str
        required: true
      status:
        description: The HTTP statuses that it may answer with.
        type: list
        elements: int
        default: [200]
      url_username:
        description: The user to log in as, with basic authentication. Without it there is no login.
        type: str
      url_password:
        description: The user's password.
        type: str
  headers:
    description: Headers of every request.
    type: dict
    default: {}
  timeout:
    description: Seconds that each may take to answer.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Ask two endpoints
  http_endpoints:
    endpoints:
      - {url: "http://127.0.0.1:8080/health"}
      - {url: "http://127.0.0.1:8082/", status: 401}
"""

RETURN = r"""
contents:
  description: What each answered, in the order of the endpoints.
  type: list
  elements: str
  returned: success
"""


def ask(endpoint: dict[str, Any], headers: dict[str, str], timeout: int) -> tuple[int | None, str]:
    """Return an endpoint's status and content; no status and the reason when there was no answer."""
    try:
        answer = open_url(
            endpoint["url"],
            headers=headers,
            timeout=timeout,
            url_username=endpoint["url_username"],
            url_password=endpoint["url_password"],
            force_basic_auth=endpoint["url_username"] is not None,
            follow_redirects="none",
        )
    except HTTPError as refusal:
        answer = refusal
    except (OSError, HTTPException) as error:
        return None, str(error)
    with answer:
        return answer.code, answer.read().decode("utf-8", "replace")


def main() -> None:
    """Ask each endpoint; see DOCUMENTATION."""
    options = {
        "url": {"type": "str", "required": True},
        "status": {"type": "list", "elements": "int", "default": [200]},
        "url_username": {"type": "str"},
        "url_password": {"type": "str", "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "dict", "required": True, "options": options},
            "headers": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    endpoints = module.params["endpoints"]
    answers = [ask(endpoint, module.params["headers"], module.params["timeout"]) for endpoint in endpoints]
    wrong = [
        f"{endpoint['url']} should answer {' or '.join(map(str, endpoint['status']))}:"
        f" {status or 'no answer'}, {content[:200]}"
        for endpoint, (status, content) in zip(endpoints, answers)
        if status not in endpoint["status"]
    ]
    if wrong:
        module.fail_json(msg="; ".join(wrong))
    module.exit_json(changed=False, contents=[content for _, content in answers])


if __name__ == "__main__":
    main()
