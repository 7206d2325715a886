"""Setup program that runs once in the root of an image under construction.

It detects the language, links its usual commands, and prepares its toolchain.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from firebox.cli.one_request.one_request import container_settings
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.install_hints import named
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime

EXIT_MISSING = 3
COMMANDS = Path("/usr/local/bin")


def main() -> None:
    """Exit with status 0 if the language on the command line can run here; otherwise report why on standard error."""
    language = sys.argv[1]
    settings = container_settings()
    definitions = named(shipped_definitions(language), language)
    search_path = os.environ.get("PATH", os.defpath)
    # before the second scan, which needs the links
    offer_commands(scan_host(search_path, definitions).runtimes, COMMANDS)
    scan = scan_host(search_path, definitions, data_folder=settings.data_dir, only=lambda _each: True)
    problems = [problem for preparation in scan.preparations if (problem := preparation.execute())]
    for path in (settings.data_dir, *settings.data_dir.rglob("*")):  # readable for any user of the image
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    for problem in (*scan.problems, *problems):
        sys.stderr.write(f"firebox: {problem}\n")
    if not scan.runtimes:
        sys.stderr.write(f"firebox: the packages provide no runtime for {language}\n")
        sys.exit(EXIT_MISSING)
    for runtime in scan.runtimes:
        sys.stderr.write(f"firebox: {runtime.language} {runtime.version}\n")


def offer_commands(runtimes: Iterable[Runtime], folder: Path) -> None:
    """Link the commands of the runtimes into a folder of PATH, except existing ones."""
    for runtime in runtimes:
        for name, program in runtime.commands.items():
            link = folder / name
            known = shutil.which(name, path=BASE_ENVIRONMENT["PATH"]) is not None or os.path.lexists(link)
            if not known and os.access(program, os.X_OK):
                link.symlink_to(program)
