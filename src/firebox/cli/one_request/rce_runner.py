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
    parser.add_argument("--path", type=Path, metavar="FOLDER", dest="folder", help="keep the files in this folder")
    parser.add_argument("--bootstrap", type=Path, metavar="FILE", default=BOOTSTRAP, help="archive to unpack there first")
    words = "run without a sandbox; requires --inside-container"
    parser.add_argument("--no-sandbox", action="store_false", dest="sandbox", help=words)
    parser.add_argument("--inside-container", action="store_true", help="confirm that this container is already a sandbox")
    options = RunOptions(**vars(parser.parse_args(arguments)))
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
