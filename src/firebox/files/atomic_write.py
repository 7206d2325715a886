"""Atomic writing of small files: readers see the old content or the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file, and flush it and its name to disk. Raises: OSError. Source: rename(2), fsync(2)."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as unfinished:
        temporary = Path(unfinished.name)
        try:
            unfinished.write(content)
            unfinished.flush()
            os.fchmod(unfinished.fileno(), mode)
            os.fsync(unfinished.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk. Raises: OSError. Source: fsync(2)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
