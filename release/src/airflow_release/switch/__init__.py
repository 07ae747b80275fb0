"""Takes the platform from one release to the next, and back: upgrade, rollback, restore and rotate."""
