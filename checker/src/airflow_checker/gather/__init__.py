"""Looks at the host: Docker, systemd, the database, Redis, files and the network. Nothing is judged here."""
