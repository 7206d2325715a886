"""Benchmarks of `firebox bench`."""
