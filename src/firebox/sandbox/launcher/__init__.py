"""The launcher process: its start, its supervision and what the host lets it do."""
