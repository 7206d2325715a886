"""Use cases and permissions, no protocol words."""
