#!/usr/bin/python
"""Ansible module: runs the platform's own command `airflow-release` on the host."""

from __future__ import annotations

import contextlib
import json
import re

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
  input:
    description: Standard input for the command, such as a log, too long and too private for an argument.
    type: str
  may_fail:
    description:
      - Whether exit code 1, a negative answer, is a result and no failure.
      - Any higher code is a failure all the same.
      - Code 2 is a wrong call, 3 says that it could not be done, 4 is a crash.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ask which operation is active
  airflow_release:
    arguments: [status, --json]
    changes: false

- name: Give up, and keep the log of what failed
  airflow_release:
    arguments: [abandon, --reason-from-stdin]
    input: "{{ {'message': 'the build failed', 'log': build.stdout} | to_json }}"
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


_PROGRESS = re.compile(r"\d\d:\d\d:\d\d ")
"""What a command says on standard error while it works begins with the time."""


def reason(code: int, errors: str) -> str:
    """Return what failed, without the progress before it and, after an empty line, the log of it."""
    lines = [line for line in errors.strip().splitlines() if not _PROGRESS.match(line)]
    if code == 2:  # argparse: the usage, and last what was wrong
        return lines[-1] if lines else ""
    return "\n".join(lines[: lines.index("")] if "" in lines else lines)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "arguments": {"type": "list", "elements": "str", "required": True},
            "changes": {"type": "bool", "default": True},
            "input": {"type": "str", "no_log": False},
            "may_fail": {"type": "bool", "default": False},
        },
    )
    program = module.get_bin_path("airflow-release")
    if program is None:
        module.fail_json(
            msg="This host has no airflow-release. To install the platform, run ansible-playbook site.yml"
        )
    code, output, errors = module.run_command(
        [program, *module.params["arguments"]],
        data=module.params["input"],
    )
    said = output.strip()
    result = {
        "exit_code": code,
        "said": said,
        "steps": errors.splitlines(),
        "changed": module.params["changes"],
    }
    if said.startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            result["answer"] = json.loads(said)
    if code > 1 or (code == 1 and not module.params["may_fail"]):
        module.fail_json(
            msg=reason(code, errors) or said.split("\n")[0] or f"airflow-release ended with code {code}",
            log=f"{said}\n{errors}".strip(),
            **result,
        )
    result["said"] = said or errors.strip()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
