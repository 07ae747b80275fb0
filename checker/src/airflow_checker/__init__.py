"""Says what is wrong with the platform on this host, and restarts what stays unhealthy."""
