"""`firebox run` past typer, for a command line without a mistake.

The launcher starts before anything else is loaded, so that it and this process load side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

from firebox.sandbox.launcher_start import start_launcher

_HELP = {"--help", "-h"}


def run_quickly(words: Sequence[str]) -> int | None:
    """Do what the words after `firebox run` say. Returns the exit status; None when there is anything that has to be explained.

    Raises: FireboxError, OSError.
    """
    if not words or not _HELP.isdisjoint(words):
        return None
    launcher = start_launcher()
    try:
        from firebox.cli.run_flags import read_quickly

        request = read_quickly(words)
        if request is None:
            return None
        from firebox.cli.run_program import run_program

        return run_program(request, launcher)
    finally:
        launcher.end()
