#!/usr/bin/python
"""Ansible module: generate fields of items in a 1Password Connect vault that are absent or outdated."""

from __future__ import annotations

import base64
import os
import secrets
import string
import traceback
from collections import defaultdict
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from ansible.module_utils.onepassword_connect import ConnectError, ConnectVault, FieldPath
    from ansible.module_utils.onepassword_connect_writer import ConnectWriter
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
except ImportError:
    MISSING_LIBRARY: str | None = traceback.format_exc()
else:
    MISSING_LIBRARY = None

DOCUMENTATION = r"""
module: onepassword_connect_items
author: The data platform team
short_description: Generate absent and outdated fields of items in 1Password Connect
description:
  - Makes sure that items in a vault have the listed fields. Absent items and fields are created with new
    random values, and so is a value for a field that is empty. A value that is there is never changed.
  - Returns names, never values; read the values with the lookup P(onepassword_connect#lookup).
  - Two runs at the same moment end with one item of each title. Connect's API has no write on condition, so
    two runs that write the same field of the same existing item within a second can disagree about its value
    until the next run.
extends_documentation_fragment: onepassword_connect
options:
  token:
    description: Access token of the Connect server; it needs to read, create and edit items of the vault.
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
        description: Label of the section that has the field.
        type: str
      generate:
        description:
          - How to make an absent value. V(password) makes letters and digits, which are safe in addresses and
            env files; V(fernet) a key for Airflow's Fernet encryption; V(ec_private_key) a private key on
            the curve P-256, in PEM (PKCS 8); V(username) the word C(admin); V(none) nothing, since a person
            keeps this one.
        type: str
        choices: [password, fernet, ec_private_key, username, none]
        default: none
      length:
        description: Number of characters of a V(password), 32 to 128.
        type: int
        default: 40
      name:
        description: Key of the field in O(outdated).
        type: str
      required:
        description: Ignored, so that one list can serve this module and the lookup.
        type: bool
  outdated:
    description:
      - Values that must not stay, by O(items[].name). Where the field has this very value, it gets a new one,
        and the old one goes to the field C(FIELD (previous)) of the same section. Where it has another value,
        it was replaced before, by a run that did not finish or by a person, and it stays.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Writes nothing and returns what it would create and renew.
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

- name: Replace the password that the database has
  onepassword_connect_items:
    url: "{{ connect_url }}"
    token: "{{ connect_token }}"
    vault_id: "{{ vault_id }}"
    items:
      - name: password
        item: Airflow database
        section: production
        field: password
        generate: password
    outdated:
      password: "{{ password_of_the_database }}"
  delegate_to: localhost
  no_log: true
"""

RETURN = r"""
created:
  description: Names of what was created (in check mode, of what would be), as C(item / section / field).
  returned: always
  type: list
  elements: str
  sample: ["Airflow database / production / password"]
renewed:
  description: Names of what was replaced (in check mode, of what would be), in the same form.
  returned: always
  type: list
  elements: str
  sample: []
"""

SHORTEST = 32
LONGEST = 128


def generator(kind: str, length: int) -> Callable[[], str]:
    """Return what makes a new value of this kind, by the module's option ``generate``."""
    alphabet = string.ascii_letters + string.digits
    makers: dict[str, Callable[[], str]] = {
        "password": lambda: "".join(secrets.choice(alphabet) for _ in range(length)),
        # 32 random bytes in URL-safe base64: https://github.com/fernet/spec/blob/master/Spec.md#key-format
        "fernet": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "ec_private_key": _ec_private_key,
        "username": lambda: "admin",
    }
    return makers[kind]


def _ec_private_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


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
                        "choices": ["password", "fernet", "ec_private_key", "username", "none"],
                        "default": "none",
                    },
                    "length": {"type": "int", "default": 40},
                    "required": {"type": "bool"},
                },
            },
            "outdated": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    if MISSING_LIBRARY:
        module.fail_json(
            msg=missing_required_lib("onepasswordconnectsdk, httpx-retries and cryptography"),
            exception=MISSING_LIBRARY,
        )
    fields = module.params["items"]
    outdated = {name: value for name, value in module.params["outdated"].items() if value}
    renewable = {entry["name"] for entry in fields if entry["generate"] != "none"}
    if unknown := outdated.keys() - renewable:
        module.fail_json(msg=f"no field that can be generated has the name {', '.join(sorted(unknown))}")
    by_item: dict[str, dict[FieldPath, Callable[[], str]]] = defaultdict(dict)
    replaced: dict[FieldPath, str] = {}
    for entry in fields:
        if not SHORTEST <= entry["length"] <= LONGEST:
            module.fail_json(
                msg=f"{entry['item']} / {entry['field']}: length must be {SHORTEST} to {LONGEST}"
            )
        if entry["generate"] != "none":
            path = FieldPath(entry["item"], entry["field"], entry["section"] or None)
            by_item[path.item][path] = generator(entry["generate"], entry["length"])
            if entry["name"] in outdated:
                replaced[path] = outdated[entry["name"]]
    result: dict[str, list[str]] = {"created": [], "renewed": []}
    try:
        vault = ConnectVault(module.params["url"], module.params["token"], module.params["vault_id"])
        writer = ConnectWriter(vault, outdated=replaced)
        for wanted in by_item.values():
            written = writer.due(wanted) if module.check_mode else writer.ensure(wanted)
            for path, had_value in written.items():
                name = " / ".join(filter(None, (path.item, path.section, path.field)))
                result["renewed" if had_value else "created"].append(name)
    except ConnectError as error:
        module.fail_json(msg=str(error), **result)
    module.exit_json(changed=any(result.values()), **result)


if __name__ == "__main__":
    main()
