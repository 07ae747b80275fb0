"""Changes a running platform's version, configuration or data: backup, restore, switch and the way back."""
