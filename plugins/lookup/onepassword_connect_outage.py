"""Lookup that says whether 1Password Connect is away; the control node asks, no other machine takes part."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase

# Ansible's setting module_utils serves modules only; a lookup runs in Ansible's own process.
_MODULE_UTILS = str(Path(__file__).parents[1] / "module_utils")
if _MODULE_UTILS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_MODULE_UTILS)

try:
    from ansible.module_utils.onepassword_connect import ConnectError, shared_vault
except ImportError as missing:
    raise AnsibleError(
        f"the lookup onepassword_connect_outage needs the control node's packages: {missing}"
    ) from missing

DOCUMENTATION = r"""
name: onepassword_connect_outage
author: The data platform team
short_description: Say whether 1Password Connect is away
description:
  - Asks for the list of the vault's items. Returns an empty text when Connect gives it.
  - Returns a sentence that says what is wrong when Connect is away, which means no answer or a 5xx for half a
    minute.
  - Any other answer, such as 401, 403 or 404, is an error, since waiting for Connect would not change it.
extends_documentation_fragment: onepassword_connect
options:
  _terms:
    description: None are taken.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Ask whether 1Password Connect answers
  ansible.builtin.set_fact:
    __outage: >-
      {{ lookup('onepassword_connect_outage', url=op_connect, token=op_api_token, vault_id=op_vault_id) }}
  no_log: true
"""

RETURN = r"""
_raw:
  description: One text, empty unless Connect is away.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """The lookup; its documentation above is the contract."""

    def run(self, terms: list[Any], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the reason why Connect is away, or an empty text. Raises AnsibleLookupError."""
        self.set_options(var_options=variables, direct=kwargs)
        url, token, vault_id = (str(self.get_option(name)) for name in ("url", "token", "vault_id"))
        try:
            # The list of items is what a title is looked for in; no item has to be there.
            shared_vault(url, token, vault_id, os.getpid()).titled("")
        except ConnectError as error:
            if error.away:
                return [str(error)]
            raise AnsibleLookupError(f"onepassword_connect_outage: {error}") from None
        return [""]
