"""What changes a running platform on its host: one release after another, and the way back."""
