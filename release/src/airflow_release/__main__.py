"""Runs the command `airflow-release` as `python3 -m airflow_release`."""

import sys

from airflow_release.cli import main

sys.exit(main())
