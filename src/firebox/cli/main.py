"""The `firebox` command: where it starts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

NAME = "firebox"
_COMPLETING = "_FIREBOX_COMPLETE"
"""The variable by which a shell asks typer to complete a word."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status; a failure is one sentence on stderr, never a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
        sys.exit(status)
    except BrokenPipeError:
        # Nobody reads on, as after `| head`: no reason for words. What is buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets words
        from firebox.cli.failures import exit_status, report

        report(error)
        sys.exit(exit_status(error, words))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _run(words: list[str]) -> int:
    """Run what the words say. `run` goes past typer where it can: see `run_flags`."""
    if words[:1] == ["run"] and _COMPLETING not in os.environ:
        from firebox.cli.run_flags import read_quickly

        request = read_quickly(words[1:])
        if request is not None:
            from firebox.cli.run_program import run_program

            return run_program(request)
    from firebox.cli.commands import app

    app(args=words, prog_name=NAME)
    return 0


if __name__ == "__main__":
    main()
