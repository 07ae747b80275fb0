"""Parses a tree of DAGs on the Airflow it runs on, and says what would break. Runs inside the Airflow image.

It stands alone: standard library, Airflow, and `packaging`, which Airflow installs. It keeps to Python 3.8,
because older Airflow images have no newer one.
"""
