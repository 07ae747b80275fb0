"""Stand-ins for the outside world, served to local and test hosts; never part of a production inventory."""
