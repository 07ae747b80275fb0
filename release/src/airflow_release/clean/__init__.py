"""Removes what was kept for long enough: logs, images, databases that were left, and Airflow's history."""
