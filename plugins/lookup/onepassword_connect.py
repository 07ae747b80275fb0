"""Lookup of secrets in 1Password Connect: the control node asks, no other machine takes part."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError, AnsibleLookupError, AnsibleOptionsError
from ansible.plugins.lookup import LookupBase

# Ansible's setting module_utils serves modules only; a lookup runs in Ansible's own process.
_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_MODULE_UTILS)

try:
    from ansible.module_utils.onepassword_connect import AbsentError, ConnectError, FieldPath, shared_vault
except ImportError as missing:
    raise AnsibleError(
        f"the lookup onepassword_connect needs the control node's packages: {missing}"
    ) from missing

DOCUMENTATION = r"""
name: onepassword_connect
author: The data platform team
short_description: Read fields of items from 1Password Connect
description:
  - Returns the value of a field of an item in a vault of 1Password Connect.
  - Each item is fetched once per process, however many of its fields are asked for.
  - Waits up to half a minute for a Connect that is busy, restarting or still syncing.
  - Errors name vault, item, section and field, and never a value.
extends_documentation_fragment: onepassword_connect
options:
  _terms:
    description:
      - What to read. A title of an item, whose field, section and so on are given as options;
      - or a dictionary with C(item) and C(field), and optionally C(section), C(required), C(default) and
        C(generate), which take the place of the options of the same name. Its keys C(name) and C(length) are
        ignored, so that one list can serve this lookup and the module M(onepassword_connect_items).
    required: true
    type: list
    elements: raw
  field:
    description: Label of the field. Required unless each term is a dictionary that has it.
    type: str
  section:
    description: Label of the section that has the field. Without it, the item's one field with this label.
    type: str
  required:
    description: Whether an absent or empty value is an error; if not, O(default) is returned.
    type: bool
    default: true
  default:
    description: What stands for a value that is absent and not required.
    type: str
    default: ""
  placeholders:
    description:
      - For check mode, in which nothing is generated. An absent value whose term says how it would be
        generated (C(generate) other than V(none)) is then C(placeholder-FIELD) and not an error.
    type: bool
    default: false
  url:
    env:
      - name: OP_CONNECT
    vars:
      - name: onepassword_connect_url
  token:
    env:
      - name: OP_API_TOKEN
    vars:
      - name: onepassword_connect_token
  vault_id:
    env:
      - name: OP_VAULT_ID
    vars:
      - name: onepassword_connect_vault_id
"""

EXAMPLES = r"""
- name: Read one field
  ansible.builtin.set_fact:
    __weather_secret: "{{ lookup('onepassword_connect', 'Diagnostic ETL (Weather)',
      field='demonstration secret', section='production') }}"
  no_log: true

- name: Read several fields, of which one may be absent
  ansible.builtin.set_fact:
    __login: "{{ query('onepassword_connect', {'item': 'Airflow admin', 'field': 'password'},
      {'item': 'Slack webhook', 'field': 'url', 'required': false}, section='production') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The values, in the order of the terms.
  type: list
  elements: str
"""

TERM_KEYS = frozenset(("item", "field", "section", "required", "default", "generate", "name", "length"))


class LookupModule(LookupBase):
    """The lookup; its documentation above is the contract."""

    def run(self, terms: list[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return one value for each term. Raises AnsibleLookupError, AnsibleOptionsError."""
        self.set_options(var_options=variables, direct=kwargs)
        try:
            vault = shared_vault(
                str(self.get_option("url")),
                str(self.get_option("token")),
                str(self.get_option("vault_id")),
                os.getpid(),
            )
            return [self._value(vault, self._complete(term)) for term in terms]
        except ConnectError as error:
            raise AnsibleLookupError(f"onepassword_connect: {error}") from None

    def _complete(self, term: Any) -> dict[str, Any]:
        """Return the term as a dictionary with every key, from the options where it has none itself."""
        given = dict(term) if isinstance(term, Mapping) else {"item": term}
        unknown = given.keys() - TERM_KEYS
        if unknown:
            raise AnsibleOptionsError(
                f"onepassword_connect: a term has unknown keys: {', '.join(sorted(unknown))}"
            )
        options = {key: self.get_option(key) for key in ("field", "section", "required", "default")}
        complete = {"item": None, "generate": "none", **options, **given}
        if not complete["item"] or not complete["field"]:
            raise AnsibleOptionsError(
                "onepassword_connect: a term needs the title of an item and the label of a field"
            )
        return complete

    def _value(self, vault: Any, term: dict[str, Any]) -> str:
        section = term["section"]
        path = FieldPath(str(term["item"]), str(term["field"]), str(section) if section else None)
        try:
            return str(vault.value(path))
        except AbsentError:
            if term["generate"] != "none" and self.get_option("placeholders"):
                return f"placeholder-{path.field.replace(' ', '-')}"
            if term["required"]:
                raise
            return str(term["default"])
