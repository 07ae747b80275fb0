#!/usr/bin/python
"""Ansible module: make sure that items of a 1Password Connect vault have the fields that can be generated."""

from __future__ import annotations

import base64
import os
import secrets
import string
import traceback
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible.module_utils.onepassword_connect import ConnectError, ConnectVault, FieldPath
    from ansible.module_utils.onepassword_connect_writer import ConnectWriter
except ImportError:
    MISSING_LIBRARY: str | None = traceback.format_exc()
else:
    MISSING_LIBRARY = None

DOCUMENTATION = r"""
module: onepassword_connect_items
author: The data platform team
short_description: Generate absent fields of items in 1Password Connect
description:
  - Makes sure that items in a vault have the listed fields. Absent items and fields are created with new
    random values, and so is a value for a field that is empty. A value that is there is never changed.
  - Returns names, never values; read the values with the lookup P(onepassword_connect#lookup).
  - Two runs at the same moment end with one item of each title. Connect's API has no write on condition, so
    two runs that add the same field to the same existing item within a second can disagree about its value
    until the next run.
options:
  url:
    description: Address of the Connect server, with or without C(/v1).
    type: str
    required: true
  token:
    description: Access token of the Connect server; it needs to read, create and edit items of the vault.
    type: str
    required: true
  vault_id:
    description: Identifier of the vault, 26 characters.
    type: str
    required: true
  items:
    description: The fields.
    type: list
    elements: dict
    required: true
    suboptions:
      item:
        description: Title of the item.
        type: str
        required: true
      field:
        description: Label of the field.
        type: str
        required: true
      section:
        description: Label of the section that holds the field.
        type: str
      generate:
        description:
          - How to make an absent value. V(password) makes letters and digits, which are safe in addresses and
            env files; V(fernet) a key for Airflow's Fernet encryption; V(username) the word C(admin); V(none)
            nothing, since a person keeps this one.
        type: str
        choices: [password, fernet, username, none]
        default: none
      length:
        description: Number of characters of a V(password), 32 to 128.
        type: int
        default: 40
      name:
        description: Ignored like O(items[].required), so that one list can serve this module and the lookup.
        type: str
      required:
        description: Ignored.
        type: bool
attributes:
  check_mode:
    description: Creates nothing and returns what it would create.
    support: full
"""

EXAMPLES = r"""
- name: Make sure that there is a database password
  onepassword_connect_items:
    url: "{{ connect_url }}"
    token: "{{ connect_token }}"
    vault_id: "{{ vault_id }}"
    items:
      - item: Airflow database
        section: production
        field: password
        generate: password
  delegate_to: localhost
"""

RETURN = r"""
created:
  description: Names of what was created (in check mode, of what would be), as C(item / section / field).
  returned: always
  type: list
  elements: str
  sample: ["Airflow database / production / password"]
"""

SHORTEST, LONGEST = 32, 128


def generator(kind: str, length: int) -> Callable[[], str]:
    """Return what makes a new value of this kind, by the module's option ``generate``."""
    alphabet = string.ascii_letters + string.digits
    makers: dict[str, Callable[[], str]] = {
        "password": lambda: "".join(secrets.choice(alphabet) for _ in range(length)),
        # 32 random bytes in URL-safe base64: https://github.com/fernet/spec/blob/master/Spec.md#key-format
        "fernet": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "username": lambda: "admin",
    }
    return makers[kind]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "vault_id": {"type": "str", "required": True},
            "items": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str"},
                    "item": {"type": "str", "required": True},
                    "field": {"type": "str", "required": True},
                    "section": {"type": "str"},
                    "generate": {
                        "type": "str",
                        "choices": ["password", "fernet", "username", "none"],
                        "default": "none",
                    },
                    "length": {"type": "int", "default": 40},
                    "required": {"type": "bool"},
                },
            },
        },
        supports_check_mode=True,
    )
    if MISSING_LIBRARY:
        module.fail_json(
            msg=missing_required_lib("onepasswordconnectsdk and httpx-retries"), exception=MISSING_LIBRARY
        )
    by_item: dict[str, dict[FieldPath, Callable[[], str]]] = defaultdict(dict)
    for entry in module.params["items"]:
        if not SHORTEST <= entry["length"] <= LONGEST:
            module.fail_json(
                msg=f"{entry['item']} / {entry['field']}: length must be {SHORTEST} to {LONGEST}"
            )
        if entry["generate"] != "none":
            path = FieldPath(entry["item"], entry["field"], entry["section"] or None)
            by_item[path.item][path] = generator(entry["generate"], entry["length"])
    created: list[str] = []
    try:
        vault = ConnectVault(module.params["url"], module.params["token"], module.params["vault_id"])
        writer = ConnectWriter(vault)
        for wanted in by_item.values():
            paths = writer.absent(wanted) if module.check_mode else writer.ensure(wanted)
            created += [" / ".join(filter(None, (path.item, path.section, path.field))) for path in paths]
    except ConnectError as error:
        module.fail_json(msg=str(error), created=created)
    result: dict[str, Any] = {"changed": bool(created), "created": created}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
