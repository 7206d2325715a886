"""The command `rce-runner`: `firebox stdio` without the startup time of the full CLI."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from firebox.cli.startup import prepare_process, raise_at_interrupts


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer one request and exit with its status."""
    prepare_process()
    import argparse
    from pathlib import Path

    from firebox.cli.failures import EXIT_FAILED, report
    from firebox.cli.one_request.one_request import BOOTSTRAP, RunOptions, answer_request

    parser = argparse.ArgumentParser(prog="rce-runner", description="Same as `firebox stdio`; see its help.")
    parser.add_argument("--path", type=Path, metavar="FOLDER", help="keep the files in this folder")
    parser.add_argument("--bootstrap", type=Path, metavar="FILE", default=BOOTSTRAP, help="archive to unpack there first")
    parser.add_argument("--no-sandbox", action="store_true", help="run without a sandbox; requires --inside-container")
    parser.add_argument("--inside-container", action="store_true", help="confirm that this container is already a sandbox")
    given = parser.parse_args(arguments)
    options = RunOptions(
        folder=given.path, bootstrap=given.bootstrap, sandbox=not given.no_sandbox, inside_container=given.inside_container
    )
    try:
        raise_at_interrupts()
        status = answer_request(options)
    except Exception as error:  # noqa: BLE001 - any error must be reported
        report(error)
        status = EXIT_FAILED
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)


if __name__ == "__main__":
    main()
