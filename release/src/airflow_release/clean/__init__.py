"""Removes what was kept for long enough: logs, images, networks and databases, and Airflow's history."""
