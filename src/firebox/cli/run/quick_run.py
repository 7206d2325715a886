"""`firebox run` past typer, for a command line without a mistake.

The launcher starts before anything else is loaded, so that it and this process load side by side.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from firebox.sandbox.launcher.launcher_start import start_launcher

_HELP = {"--help", "-h"}


def run_quickly(words: Sequence[str]) -> int | None:
    """Do what the words after `firebox run` say. Returns the exit status; None when there is anything that has to be explained.

    Raises: FireboxError, OSError.
    """
    if not words or not _HELP.isdisjoint(words):
        return None
    launcher = start_launcher()
    gc.disable()  # loading modules makes no garbage
    try:
        from firebox.server.absent_modules import absent

        with absent("typing_extensions"):  # which msgspec loads where it is installed, and does not need
            from firebox.cli.run.run_flags import read_quickly
        request = read_quickly(words)
        if request is None:
            return None
        from firebox.cli.run.run_program import run_program

        return run_program(request, launcher)
    finally:
        launcher.end()
