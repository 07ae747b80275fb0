"""The parts that the views work with."""

from dataclasses import dataclass
from typing import cast

from flask import current_app

from webhook.airflow_status import AirflowClient
from webhook.coordinator import Coordinator
from webhook.jobs import Jobs
from webhook.keys import Keys
from webhook.limits import FailureLimiter
from webhook.metrics import Metrics
from webhook.settings import Settings
from webhook.store import Store


@dataclass(frozen=True)
class Services:
    """What the views work with. `jobs` is None where no repository is configured; then, and where there
    are no worker hosts, so is `coordinator`.
    """

    settings: Settings
    store: Store
    keys: Keys
    jobs: Jobs | None
    metrics: Metrics
    airflow: AirflowClient
    failures: FailureLimiter
    coordinator: Coordinator | None = None

    def close(self) -> None:
        """End the background threads."""
        self.keys.close()
        if self.jobs is not None:
            self.jobs.close()
        if self.coordinator is not None:
            self.coordinator.close()


def services() -> Services:
    """Return the services of the running app."""
    return cast(Services, current_app.extensions["webhook"])
