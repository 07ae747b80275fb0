"""Takes, proves, keeps and examines backups."""
