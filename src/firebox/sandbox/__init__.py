"""Isolated process trees. Knows no language, user or protocol."""
