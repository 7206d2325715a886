"""Floor 8: what `firebox bench` is made of."""
