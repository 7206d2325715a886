"""`firebox run`."""
