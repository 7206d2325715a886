"""`firebox images build`."""
