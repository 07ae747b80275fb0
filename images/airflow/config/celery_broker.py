"""Celery's settings for who asks the broker without Airflow's: Flower. `CELERY_CONFIG_MODULE` names it.

Whoever waits for an answer from Redis also delivers again what a worker took and has not confirmed for longer
than the asker's own `visibility_timeout`. Celery's is an hour, so a longer task would begin a second time.
"""

import os

broker_transport_options = {"visibility_timeout": int(os.environ["CELERY_VISIBILITY_TIMEOUT"])}
