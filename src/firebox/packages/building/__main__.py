"""Build recipes by hand: `python -m firebox.packages.building RECIPE OUTPUT`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from firebox.config import load_settings
from firebox.errors import FireboxError
from firebox.packages.building.build import build
from firebox.packages.building.recipe import find_recipe
from firebox.packages.entry import Progress


def main() -> None:
    name, output = sys.argv[1:3]
    supplied = {key: Path(file) for key, _, file in (word.partition("=") for word in sys.argv[3:])}
    package, _, series = name.partition("/")
    began = time.monotonic()

    def report(progress: Progress) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.1f} {progress.words}\n")

    try:
        built = build(find_recipe(package, series or "*"), load_settings({}, None), Path(output), report, sources=supplied)
    except FireboxError as error:
        sys.exit(f"{error}\n  {error.hint}")
    import importlib

    importlib.import_module("firebox.cli.package_build").try_package(
        find_recipe(package, series or "*"), built, load_settings({}, None), report
    )
    sys.stdout.write(f"{built.file} {built.entry.checksums['sha256']} in {time.monotonic() - began:.1f} s\n")


main()
