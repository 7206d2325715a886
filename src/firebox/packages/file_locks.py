"""Locks between processes: flock(2), which the kernel lets go of however their holder ends.

Source: flock(2): a lock belongs to the open file description, so two parts of one process exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(descriptor: int, *, shared: bool = False) -> bool:
    """Take a lock at once, or tell that somebody else has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def let_go(descriptor: int) -> None:
    """Give a lock back and keep the descriptor open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether what is open is still what is found at this place."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
