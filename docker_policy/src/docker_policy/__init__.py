"""The filter between DAGs and Docker's API: each request is written anew, or refused."""
