"""Everything between a push to the production branch and live DAGs on the host."""
