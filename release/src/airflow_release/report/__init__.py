"""Says what the next release changes, and whether a DAG is in the way."""
