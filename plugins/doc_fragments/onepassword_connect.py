"""Options of all that talks to 1Password Connect, written once for the documentation of each."""

from __future__ import annotations


class ModuleDocFragment:
    """What `extends_documentation_fragment: onepassword_connect` adds."""

    DOCUMENTATION = r"""
options:
  url:
    description: Address of the Connect server, with or without C(/v1).
    type: str
    required: true
  token:
    description: Access token of the Connect server.
    type: str
    required: true
  vault_id:
    description: Identifier of the vault, 26 characters.
    type: str
    required: true
"""
