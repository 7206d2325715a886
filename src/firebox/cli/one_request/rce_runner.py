"""The command `rce-runner`: `firebox stdio` without the time it takes to load a whole command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from firebox.cli.inherited import repair_inherited_state
from firebox.cli.interrupts import end_at_interrupts, raise_at_interrupts


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer one request and exit with its status."""
    repair_inherited_state()
    end_at_interrupts()
    import argparse
    from pathlib import Path

    from firebox.cli.failures import EXIT_FAILED, report
    from firebox.cli.one_request.one_request import BOOTSTRAP, Way, answer_one

    parser = argparse.ArgumentParser(prog="rce-runner", description="The same as `firebox stdio`, which explains it.")
    parser.add_argument("--path", type=Path, metavar="FOLDER", help="put the files there and leave them")
    parser.add_argument("--bootstrap", type=Path, metavar="FILE", default=BOOTSTRAP, help="archive to be unpacked there first")
    parser.add_argument("--no-sandbox", action="store_true", help="run the code as it is; only with --inside-container")
    parser.add_argument("--inside-container", action="store_true", help="this runs in a container that is the sandbox already")
    given = parser.parse_args(arguments)
    way = Way(given.path, given.bootstrap, sandbox=not given.no_sandbox, inside_container=given.inside_container)
    try:
        raise_at_interrupts()
        status = answer_one(way)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets words
        report(error)
        status = EXIT_FAILED
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)


if __name__ == "__main__":
    main()
