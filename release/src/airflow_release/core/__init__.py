"""What the rest of the package stands on: host, errors, files, lock, settings, database, images, records."""
