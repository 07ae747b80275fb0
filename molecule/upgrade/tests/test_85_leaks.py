"""While keys and passwords are replaced, no process shows them: neither the old ones nor the new ones."""

from __future__ import annotations

import pytest
from canaries import AIRFLOW, PLACES, misplaced, watched
from platform_host import Platform

from tests.releases import NEWEST


@pytest.mark.starts_on(NEWEST)
def test_rotation_shows_no_secret_to_other_users(platform: Platform) -> None:
    """The watch began in test_55_leaks.py, and knows the values of before."""
    seen = watched(platform.host)
    assert set(seen["canaries"]) >= AIRFLOW
    # The worker had the values of before until it was replaced.
    now = {
        place: sorted({name.removesuffix(" (previous)") for name in names}) for place, names in seen.items()
    }
    assert set(now["variables of airflow-worker"]) == PLACES["definition of airflow-worker"][0]
    assert misplaced(now) == {}
