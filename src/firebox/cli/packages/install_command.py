"""`firebox packages install`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firebox.cli.completion import offer_packages
from firebox.cli.options import ConfigFile, settings_flags
from firebox.cli.packages.build_command import built_folder, check_recipes, find_recipe, make
from firebox.cli.packages.context import PACKAGE_ROWS, AsJson, Parts, RepositoryName, Sync, open_parts, run
from firebox.cli.packages.find_package import find_package
from firebox.cli.packages.json_output import as_installed
from firebox.cli.packages.output_tables import print_json, size_words
from firebox.cli.packages.package_names import NAMES_METAVAR, Selector, is_file, package_file, read_selector
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.recipes_command import recipe_names
from firebox.domain.errors import NotFound
from firebox.packages.entry import Entry, Report
from firebox.packages.repository.sources import BUILT

if TYPE_CHECKING:
    from firebox.packages.building.recipe import Recipe
    from firebox.packages.installed.store import Installed

INTERRUPTED = "packages that were not finished are not installed; what was downloaded is kept for the next try"


@settings_flags(PACKAGE_ROWS)
def install(
    packages: Annotated[
        list[str],
        typer.Argument(
            metavar=NAMES_METAVAR,
            help="Packages by name, with a version range if need be; or files.",
            autocompletion=offer_packages,
        ),
    ],
    repository: RepositoryName = "all",
    build: Annotated[
        bool, typer.Option("--build", help="Build what no repository has from the recipe that comes with Firebox.")
    ] = False,
    sync: Sync = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    **flags: object,
) -> None:
    """Install packages with everything they depend on. A server that runs offers them at once.

    Like `firebox packages install python@3.13.x haskell`, or `firebox packages install ./lua-5.4.7.squashfs` for a file. The
    newest version that fits is taken; several versions live side by side. What is there already is left as it is.
    """
    parts = open_parts(config, flags)
    installed: list[Installed] = []
    try:
        with show_progress() as report:
            files = [package_file(word) for word in packages if is_file(word)]
            selectors = [read_selector(word) for word in packages if not is_file(word)]
            if sync:
                run(parts.repositories.sync(repository, report))
            # Everything is found first, so that a misspelt name changes nothing.
            found = run(_find_all(parts, selectors, repository=repository, build=build))
            entries = [each if isinstance(each, Entry) else _built(parts, each, report) for each in found]
            run(install_all(parts, entries, files, report, installed), INTERRUPTED)
    finally:  # when the third of five fails, two are there
        if as_json:
            print_json([as_installed(each) for each in installed])
        for each in () if as_json else installed:
            size = size_words(each.size_bytes)
            print(f"installed {each.id}" + (f" ({size})" if size else ""))


async def install_all(
    parts: Parts, entries: Sequence[Entry], files: Sequence[Path], report: Report, done: list[Installed]
) -> None:
    """Install one package after the other. done: what got installed so far, for the caller of a work that fails.

    A package that is there already is no failure: it is what was asked for.
    """
    for entry in entries:
        if parts.store.get(entry.name) is not None:
            typer.echo(f"{entry.name} is already installed", err=True)
        else:
            done += await parts.installer().install(entry, report)
    for file in files:
        done += await parts.installer().install_file(file, report)


def _built(parts: Parts, recipe: Recipe, report: Report) -> Entry:
    """Build a package, and give it as the repository `built` announces it. Raises: BuildFailed."""
    made = make(recipe, parts.settings, built_folder(parts.settings), report, {}).entry
    return run(parts.repositories.find(made.language, made.version, repository=BUILT))


async def _find_all(parts: Parts, selectors: Sequence[Selector], *, repository: str, build: bool) -> list[Entry | Recipe]:
    """Find each package in the repositories, or else the recipe that it has to be built from."""
    found: list[Entry | Recipe] = []
    for selector in selectors:
        try:
            found.append(await find_package(parts, selector, repository))
        except NotFound:
            if not build or selector.name not in recipe_names():
                raise
            found.append(find_recipe(selector))
    check_recipes([each for each in found if not isinstance(each, Entry)], {})
    return found
