"""Everything between a push and live DAGs; today, the page that says what runs."""
