"""Firebox's own protocol, version 1."""
