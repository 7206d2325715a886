"""Repositories: indexes, signatures, trust, dependency resolution."""
