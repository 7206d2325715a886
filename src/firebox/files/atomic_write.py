"""Atomic replacement of files: readers see the old content or the new one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Generator[IO[bytes]]:
    """Yield a temporary file that replaces `path` when the context is left without an error.

    The file and its name are flushed to disk. Raises: OSError. Source: rename(2), fsync(2).
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as unfinished:
        try:
            yield unfinished
            unfinished.flush()
            os.fchmod(unfinished.fileno(), mode)
            os.fsync(unfinished.fileno())
            Path(unfinished.name).replace(path)
        except BaseException:
            Path(unfinished.name).unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file atomically and durably. Raises: OSError."""
    with replacing(path, mode=mode) as opened:
        opened.write(content)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk. Raises: OSError. Source: fsync(2)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
