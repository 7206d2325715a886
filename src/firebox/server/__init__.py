"""Floor 8: one server process with every door."""
