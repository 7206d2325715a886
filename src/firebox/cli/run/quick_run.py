"""Fast path of `firebox run`, without typer, for valid command lines.

The launcher starts before anything else is imported, so that it and this process load in parallel.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from firebox.sandbox.launcher.launcher_start import start_launcher

_HELP = {"--help", "-h"}


def run_quickly(words: Sequence[str]) -> int | None:
    """Handle the words after `firebox run`. Return the exit status, or None if typer has to explain something."""
    if not words or not _HELP.isdisjoint(words):
        return None
    launcher = start_launcher()
    gc.disable()  # importing modules creates no garbage
    try:
        from firebox.server.absent_modules import absent

        with absent("typing_extensions"):  # msgspec imports it if it is installed, but does not need it
            from firebox.cli.run.run_flags import read_quickly
        request = read_quickly(words)
        if request is None:
            return None
        from firebox.cli.run.run_program import run_program

        return run_program(request, launcher)
    finally:
        launcher.end()
