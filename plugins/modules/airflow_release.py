#!/usr/bin/python
"""Ansible module: runs the platform's own command `airflow-release` on the host."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: airflow_release
author: The data platform team
short_description: Run a command of airflow-release on the host
description:
  - Runs C(airflow-release), which is installed on the host.
  - C(airflow-release --help) has its commands and exit codes.
options:
  arguments:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
  changes:
    description: Whether the command changes something on the host.
    type: bool
    default: true
  may_fail:
    description: Whether exit code 1, a negative answer, is a result and no failure.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ask what is under way
  airflow_release:
    arguments: [status, --json]
    changes: false
"""

RETURN = r"""
exit_code:
  description: The exit code. Not C(rc), since Ansible takes any result with an C(rc) but 0 for a failure.
  returned: always
  type: int
said:
  description: What the command printed, without the last line break.
  returned: always
  type: str
steps:
  description: What the command printed beside that, on standard error.
  returned: always
  type: list
  elements: str
answer:
  description: The same as a value, when it is JSON.
  returned: when it is
  type: raw
"""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "arguments": {"type": "list", "elements": "str", "required": True},
            "changes": {"type": "bool", "default": True},
            "may_fail": {"type": "bool", "default": False},
        },
    )
    code, output, errors = module.run_command(
        [module.get_bin_path("airflow-release", required=True), *module.params["arguments"]]
    )
    said = output.strip()
    result = {
        "exit_code": code,
        "said": said,
        "steps": errors.splitlines(),
        "changed": module.params["changes"],
    }
    if said.startswith(("{", "[")):
        result["answer"] = json.loads(said)
    if code > 1 or (code == 1 and not module.params["may_fail"]):
        module.fail_json(
            msg=(errors.strip() or said).split("\n")[0], log=f"{said}\n{errors}".strip(), **result
        )
    result["said"] = said or errors.strip()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
