"""One server process with every door."""
