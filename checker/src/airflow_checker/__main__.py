"""Runs the command `airflow-checker` as `python3 -m airflow_checker`."""

import sys

from airflow_checker.cli import main

sys.exit(main())
