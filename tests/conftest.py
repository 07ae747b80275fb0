"""What all tests share: property-based tests measure no time, since the machine may be busy."""

from __future__ import annotations

import contextlib

# The environments in which DAGs, gate and image are tested have Airflow's packages and pytest only.
with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
