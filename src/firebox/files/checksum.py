"""Checksums of whole files."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_checksum(file: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in lower-case hexadecimal. algorithm: a name known to hashlib. Raises: OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
