"""The schema version that this Firebox needs, and the table that stores the version of a database."""

from __future__ import annotations

HEAD = "0001"
"""The latest version. A test checks that it is the last migration's."""
BASE = "base"
"""The version of a database without tables of ours."""
VERSION_TABLE = "firebox_schema"
