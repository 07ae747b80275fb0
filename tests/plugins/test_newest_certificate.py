"""The filter `newest_certificate`: of the inventory and the host, what was issued last is served."""

from __future__ import annotations

from datetime import timedelta

import pytest

from plugins.filter.newest_certificate import FilterModule
from tests.certificates import certificate

newest_certificate = FilterModule().filters()["newest_certificate"]
NAMES = ["airflow.example.org"]
YEAR = timedelta(days=365)
NEW = certificate(NAMES)
OLD = certificate(NAMES, ends_in=YEAR, issued=-timedelta(days=30))
"""It ends later, as one that was good for a year before its successor is good for weeks."""


@pytest.mark.parametrize("texts", [[OLD, NEW], [NEW, OLD]], ids=["dropped", "in the inventory"])
def test_one_that_was_issued_last_is_served(texts: list[str]) -> None:
    assert newest_certificate(texts) == NEW


@pytest.mark.parametrize("unreadable", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_is_the_oldest(unreadable: str) -> None:
    """A host without a certificate, or with a damaged one, gets that of the inventory."""
    assert newest_certificate([OLD, unreadable]) == OLD


def test_of_two_the_same_it_is_that_of_the_inventory() -> None:
    """With another end of its text, or another key in it, perhaps."""
    assert newest_certificate([OLD, f"{OLD}\n"]) == OLD
