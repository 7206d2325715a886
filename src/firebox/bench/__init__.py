"""Floor 9: what `firebox bench` measures and how."""
