"""Runs once in the root of an image that is being built: finds the language there, and makes ready what its tools need once."""

from __future__ import annotations

import os
import sys

from firebox.cli.one_request import container_settings
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.host import scan_host
from firebox.runtimes.packages import named

EXIT_MISSING = 3


def main() -> None:
    """Exit with 0 when the language of the command line can run there; else say why not on standard error."""
    language = sys.argv[1]
    settings = container_settings()
    definitions = named(shipped_definitions(language), language)
    scan = scan_host(os.environ.get("PATH", os.defpath), definitions, data_folder=settings.data_dir, only=lambda _each: True)
    problems = [problem for preparation in scan.preparations if (problem := preparation.execute())]
    for path in (settings.data_dir, *settings.data_dir.rglob("*")):  # read by whoever the image's user is
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    for problem in (*scan.problems, *problems):
        sys.stderr.write(f"firebox: {problem}\n")
    if not scan.runtimes:
        sys.stderr.write(f"firebox: the packages bring nothing that runs {language}\n")
        sys.exit(EXIT_MISSING)
    for runtime in scan.runtimes:
        sys.stderr.write(f"firebox: {runtime.language} {runtime.version}\n")
