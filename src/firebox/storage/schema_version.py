"""Which schema this Firebox needs, and where a database says which one it has."""

from __future__ import annotations

HEAD = "0001"
"""The newest version. A test holds that it is the last migration's."""
BASE = "base"
"""The version of a database without our tables."""
VERSION_TABLE = "firebox_schema"
