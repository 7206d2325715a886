"""Repositories: signed indexes, trust and dependency resolution."""
