#!/usr/bin/python
"""Ansible module: log in to Airflow's pages as a user does, and read the version in the footer."""

from __future__ import annotations

import re

from ansible.module_utils.airflow_login import LoginError, log_in, until_taken
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: airflow_footer
author: The data platform team
short_description: Read the version in the footer of Airflow's pages
description:
  - Logs in through the form, since the footer is for those who are logged in, and keeps the cookies of the
    session between the requests, which M(ansible.builtin.uri) does not.
options:
  url:
    description: Address of Airflow, without a slash at its end.
    type: str
    required: true
  username:
    description: Whom to log in as.
    type: str
    required: true
  password:
    description: The password.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Read the footer
  airflow_footer:
    url: http://127.0.0.1:8080
    username: admin
    password: "{{ password }}"
  register: footer
"""

RETURN = r"""
version:
  description: The version in the footer, without its C(v).
  returned: success
  type: str
"""

WAIT_SECONDS = 120
"""For an answer. Airflow takes five logins in 40 seconds from one address, and this host may have others."""
FOOTER = re.compile(r"<footer.*?</footer>", re.DOTALL)
VERSION = re.compile(r"\bv(\d+\.\d+\.\d+\w*)")


def footer(url: str, username: str, password: str) -> str:
    """Return the footer of the first page; "" when there is none.

    Raises:
        LoginError: name and password are wrong.
        OSError: there was no answer, or an error.
    """
    cookies = until_taken(lambda: log_in(url, username, password), WAIT_SECONDS)
    page = open_url(f"{url}/home", cookies=cookies, timeout=60).read().decode()
    found = FOOTER.search(page)
    return found[0] if found else ""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        text = footer(parameters["url"], parameters["username"], parameters["password"])
    except LoginError as error:
        module.fail_json(msg=f"{error}. Its password in 1Password is in force after the next site.yml.")
    except OSError as error:
        module.fail_json(msg=f"{parameters['url']} does not answer as it should: {error}")
    found = VERSION.findall(text)
    if not found:
        module.fail_json(
            msg=f"The first page of {parameters['url']} has no version in its footer: {text or 'no footer'}"
        )
    module.exit_json(changed=False, version=found[0])


if __name__ == "__main__":
    main()
