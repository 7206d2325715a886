"""Piston's v2 protocol."""
