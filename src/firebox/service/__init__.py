"""Floor 6: use cases and permissions, no protocol words."""
