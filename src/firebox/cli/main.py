"""Entry point of the `firebox` command."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import firebox
from firebox.cli.startup import prepare_process, raise_at_interrupts

NAME = "firebox"
VERSION_FLAGS = ("--version", "-V")
_COMPLETING = "_FIREBOX_COMPLETE"
"""The variable by which a shell requests a completion from typer."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status. A failure is one sentence on stderr, never a traceback."""
    prepare_process()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run_quickly(words) if _COMPLETING not in os.environ else None
        if status is not None:
            _leave(status)
        from firebox.cli.command_table import app

        raise_at_interrupts()
        app(args=words, prog_name=NAME)
        sys.stdout.flush()
        sys.exit(0)
    except BrokenPipeError:
        # The reader is gone, as with `| head`: no message, and no flush of buffered output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:  # noqa: BLE001 - users get a message for every failure
        from firebox.cli.failures import exit_status, report

        report(error)
        sys.exit(exit_status(error, words))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _run_quickly(words: Sequence[str]) -> int | None:
    """Try the fast paths without typer, which takes longer to load than a small program to run. Return None for all else."""
    if words[:1] == ["run"]:
        from firebox.cli.run.quick_run import run_quickly

        return run_quickly(words[1:])
    if words[:1] == ["serve"]:
        from firebox.cli.quick_serve import serve_quickly

        raise_at_interrupts()
        if serve_quickly(words[1:]):
            sys.exit(0)  # runs exit handlers, which remove temporary files
        return None
    if len(words) == 1 and words[0] in VERSION_FLAGS:
        show_version()
        return 0
    return None


def show_version() -> None:
    print(f"{NAME} {firebox.__version__}")


def _leave(status: int) -> None:
    """Exit at once: finalizing the interpreter would take a tenth of the time of a small run."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
