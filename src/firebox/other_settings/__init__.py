"""The names of other systems' settings, read as ours: one module a system, each of the same shape."""
