"""A filter that chooses between a certificate of the inventory and the one that a host serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from cryptography import x509

DOCUMENTATION = r"""
name: newest_certificate
author: The data platform team
short_description: The certificate that was issued last
description:
  - Of several certificate chains with their keys, as PEM texts, returns the one whose certificate was
    issued last. Of two that were issued at the same time it is the first. A text without a certificate
    counts as the oldest.
options:
  _input:
    description: The PEM texts.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Serve the newer certificate
  ansible.builtin.copy:
    content: "{{ [tls_certificate, served_certificate] | newest_certificate }}"
    dest: /etc/example/certificate.pem
    mode: "0400"
"""

RETURN = r"""
_value:
  description: The text of the certificate that was issued last.
  type: str
"""


def newest_certificate(texts: Iterable[str]) -> str:
    """Return the PEM text whose first certificate was issued last."""
    return max(texts, key=_issued)


def _issued(text: str) -> datetime:
    try:
        [certificate, *_] = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return certificate.not_valid_before_utc


class FilterModule:
    """Tells Ansible of the filter."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filter by its name."""
        return {"newest_certificate": newest_certificate}
