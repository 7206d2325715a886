"""`firebox packages export` and `import`: packages in one file, for offline machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firebox.cli.completion import offer_packages
from firebox.cli.packages.context import PACKAGE_ROWS, AsJson, PackageContext, RepositoryName, run, with_context
from firebox.cli.packages.install_command import install_all
from firebox.cli.packages.output_tables import as_installed, format_size, print_json
from firebox.cli.packages.package_names import find_package, matches, names_argument, read_selector
from firebox.cli.packages.progress import show_progress
from firebox.domain.errors import InvalidRequest
from firebox.packages.entry import Entry, Report

if TYPE_CHECKING:
    from firebox.packages.installed.store import Installed


@with_context(PACKAGE_ROWS)
def export_packages(
    context: PackageContext,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Output file.")],
    packages: Annotated[
        list[str] | None, names_argument("Package names, optionally with a version range.", offer_packages)
    ] = None,
    installed: Annotated[bool, typer.Option("--installed", help="Export all installed packages.")] = False,
    repository: RepositoryName = "all",
    as_json: AsJson = False,
) -> None:
    """Write packages and their dependencies to one file, for a machine without a network.

    Example: `firebox packages export python haskell -o languages.tar`. Installed packages are reused; the others are downloaded,
    but not installed.
    """
    if bool(packages) == installed:
        raise InvalidRequest("name packages, or use --installed")
    if not output.absolute().parent.is_dir():
        raise InvalidRequest(f"{output.parent} is not a folder", where="--output")
    with show_progress() as report:
        written = run(_export(context, packages or [], repository, output, report), f"{output} was not written")
    if as_json:
        print_json({"file": str(output), "file_bytes": output.stat().st_size, "packages": [entry.name for entry in written]})
        return
    for entry in written:
        print(f"exported {entry.name}")
    print(f"{output}: {format_size(output.stat().st_size)}")


@with_context(PACKAGE_ROWS)
def import_packages(
    context: PackageContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by `firebox packages export`.")],
    install: Annotated[bool, typer.Option("--install", help="Also install all packages of the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the packages of a file to the repository `built`, all or none, so that they can be installed.

    Example: `firebox packages import languages.tar --install`. Packages are verified like downloads: by checksum, and by
    signature if keys are trusted on this machine.
    """
    from firebox.packages.publishing.bundle import import_bundle

    if not file.is_file():
        raise InvalidRequest(f"{file}: no such file", where="FILE")
    done: list[Installed] = []
    entries: list[Entry] = []
    try:
        with show_progress() as report:
            entries += run(import_bundle(file, context.settings, report))
            if install:
                run(install_all(context, entries, [], report, done), "unfinished packages were not installed")
    finally:
        if as_json:
            print_json({"imported": [entry.name for entry in entries], "installed": [as_installed(each) for each in done]})
        else:
            for entry in entries:
                print(f"imported {entry.name}")
            for each in done:
                print(f"installed {each.id}")


async def _export(context: PackageContext, words: Sequence[str], repository: str, output: Path, report: Report) -> list[Entry]:
    from firebox.packages.publishing.bundle import export_bundle
    from firebox.packages.versions import newest_first

    there = [package.entry for package in context.store.all()]
    wanted = [] if words else there
    for word in words:
        selector = read_selector(word)
        own = [entry for entry in there if matches(selector, entry) and repository in {"all", entry.repository}]
        wanted.append(newest_first(own)[0] if own else await find_package(context, selector, repository))
    return await export_bundle(wanted, output, context.settings, context.repositories, context.store, report)
