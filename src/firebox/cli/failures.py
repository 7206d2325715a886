"""Failures of commands: a sentence and a hint on stderr, and the exit status."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from firebox.domain.errors import FireboxError, RequestError, SettingsError

EXIT_USAGE = 2
"""A usage error, or an error in a setting or the job."""
EXIT_FAILED = 125
"""A failure of Firebox itself, as in timeout(1) and container engines."""
DEBUG_VARIABLE = "FIREBOX_DEBUG"


def exit_status(error: Exception, words: Iterable[str] = ()) -> int:
    """Return the exit status for a failure. words: the command line; files named there are the user's own."""
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        name = _from_here(os.fsdecode(error.filename))
        return EXIT_USAGE if any(_from_here(word.rpartition("=")[2]) == name for word in words) else EXIT_FAILED
    return EXIT_USAGE if isinstance(error, RequestError | SettingsError) else EXIT_FAILED


def report(error: Exception) -> None:
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
            print("  hint: the current folder was deleted", file=sys.stderr)
        return
    print(f"firebox: a bug: {type(error).__name__}: {error}", file=sys.stderr)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    else:
        print(f"  hint: set {DEBUG_VARIABLE}=1 for a traceback", file=sys.stderr)


def _from_here(word: str) -> Path:
    """Return an absolute path, unless the current folder was deleted."""
    return Path(word) if _is_nowhere() else Path(word).absolute()


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
