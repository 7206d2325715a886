"""How a command fails: one sentence and a hint on stderr, and an exit status that says whose fault it was."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from firebox.domain.errors import FireboxError, RequestError, SettingsError

EXIT_USAGE = 2
"""The command line, a setting or the job is at fault."""
EXIT_FAILED = 125
"""Firebox itself failed, not the program in it: as with timeout(1) and container engines."""
DEBUG_VARIABLE = "FIREBOX_DEBUG"


def exit_status(error: Exception, words: Iterable[str] = ()) -> int:
    """Choose the exit status for a failure. words: the command line, whose files are the user's own."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        name = _from_here(os.fsdecode(error.filename))
        return EXIT_USAGE if any(_from_here(word.rpartition("=")[2]) == name for word in words) else EXIT_FAILED
    return EXIT_USAGE if isinstance(error, RequestError | SettingsError) else EXIT_FAILED


def report(error: Exception) -> None:
    """Say on stderr what went wrong."""
    if isinstance(error, FireboxError):
        where = getattr(error, "where", "")
        print(f"firebox: {where + ': ' if where else ''}{error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        print(f"firebox: {name}{error.strerror or error}", file=sys.stderr)
        if error.errno == errno.ENOENT and error.filename is None and _is_nowhere():
            print("  hint: the current folder has been removed", file=sys.stderr)
        return
    print(f"firebox: a bug: {type(error).__name__}: {error}", file=sys.stderr)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    else:
        print(f"  hint: set {DEBUG_VARIABLE}=1 to see where", file=sys.stderr)


def _from_here(word: str) -> Path:
    """Make a path absolute, unless the current folder has been removed."""
    return Path(word) if _is_nowhere() else Path(word).absolute()


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
