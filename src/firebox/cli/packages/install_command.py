"""`firebox packages install` and `uninstall`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firebox.cli.completion import offer_installed, offer_packages
from firebox.cli.packages.build_command import build_and_test, check_recipes, find_recipe
from firebox.cli.packages.context import PACKAGE_ROWS, AsJson, PackageContext, RepositoryName, Sync, run, with_context
from firebox.cli.packages.output_tables import as_installed, format_size, print_json
from firebox.cli.packages.package_names import (
    Selector,
    find_installed,
    find_package,
    is_file,
    names_argument,
    package_file,
    read_selector,
)
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.recipes_command import recipe_names
from firebox.domain.errors import NotFound
from firebox.packages.entry import Entry, Report
from firebox.packages.repository.sources import BUILT, built_folder

if TYPE_CHECKING:
    from firebox.packages.building.recipe import Recipe
    from firebox.packages.installed.store import Installed

INTERRUPTED = "unfinished packages were not installed; their downloads are kept for the next attempt"


@with_context(PACKAGE_ROWS)
def install(
    context: PackageContext,
    packages: Annotated[
        list[str], names_argument("Package names, optionally with a version range, or package files.", offer_packages)
    ],
    repository: RepositoryName = "all",
    build: Annotated[
        bool, typer.Option("--build", help="If no repository has the package, build it from the built-in recipe.")
    ] = False,
    sync: Sync = False,
    as_json: AsJson = False,
) -> None:
    """Install packages and their dependencies. A running server offers them immediately.

    Example: `firebox packages install python@3.13.x haskell`, or `firebox packages install ./lua-5.4.7.squashfs` for a file. The
    newest matching version is installed; several versions can coexist. Packages that are already installed are skipped.
    """
    installed: list[Installed] = []
    try:
        with show_progress() as report:
            files = [package_file(word) for word in packages if is_file(word)]
            selectors = [read_selector(word) for word in packages if not is_file(word)]
            if sync:
                run(context.repositories.sync(repository, report))
            # Resolve all names first, so that a typo changes nothing.
            found = run(_find_all(context, selectors, repository=repository, build=build))
            entries = [each if isinstance(each, Entry) else _built(context, each, report) for each in found]
            run(install_all(context, entries, files, report, installed), INTERRUPTED)
    finally:  # when the third of five fails, two are installed
        if as_json:
            print_json([as_installed(each) for each in installed])
        for each in () if as_json else installed:
            size = format_size(each.size_bytes)
            print(f"installed {each.id}" + (f" ({size})" if size else ""))


async def install_all(
    context: PackageContext, entries: Sequence[Entry], files: Sequence[Path], report: Report, done: list[Installed]
) -> None:
    """Install packages one by one, except installed ones. done: collects the installed packages, also in case of a failure."""
    for entry in entries:
        if context.store.get(entry.name) is not None:
            typer.echo(f"{entry.name} is already installed", err=True)
        else:
            done += await context.installer().install(entry, report)
    for file in files:
        done += await context.installer().install_file(file, report)


def _built(context: PackageContext, recipe: Recipe, report: Report) -> Entry:
    """Build a package and return its entry in the repository `built`. Raises: BuildFailed."""
    made = build_and_test(recipe, context.settings, built_folder(context.settings), report, {}).entry
    return run(context.repositories.find(made.language, made.version, repository=BUILT))


async def _find_all(
    context: PackageContext, selectors: Sequence[Selector], *, repository: str, build: bool
) -> list[Entry | Recipe]:
    """Find each package in the repositories, or else the recipe to build it."""
    found: list[Entry | Recipe] = []
    for selector in selectors:
        try:
            found.append(await find_package(context, selector, repository))
        except NotFound:
            if not build or selector.name not in recipe_names():
                raise
            found.append(find_recipe(selector))
    check_recipes([each for each in found if not isinstance(each, Entry)], {})
    return found


@with_context(PACKAGE_ROWS)
def uninstall(
    context: PackageContext,
    packages: Annotated[list[str], names_argument("Installed packages; all matching versions are removed.", offer_installed)],
    as_json: AsJson = False,
) -> None:
    """Uninstall packages, after waiting for active runs (at most `uninstall_wait_ms`).

    Example: `firebox packages uninstall python@3.11.x`. A package that another one requires is not removed: uninstall both, or
    the other one first. Dependencies are kept; `firebox packages apply` removes unneeded ones. A corrupt package is given by its
    id, as shown in the log of `firebox serve`.
    """
    installed = context.store.all()
    damaged = [word for word in packages if word in context.store.damaged()]
    words = [word for word in packages if word not in damaged]
    chosen = {each.id: each for word in words for each in find_installed(installed, word)}
    removed: list[str] = []

    async def work(report: Report) -> None:
        installer = context.installer()
        for id_ in (*damaged, *removal_order(list(chosen.values()))):
            await installer.uninstall(id_, report)
            removed.append(id_)

    try:
        with show_progress() as report:
            run(work(report), "only the packages listed above were removed")
    finally:
        if as_json:
            print_json(removed)
        for id_ in () if as_json else removed:
            print(f"removed {id_}")


def removal_order(packages: Sequence[Installed]) -> list[str]:
    """Sort packages so that each comes before its dependencies."""
    ordered: list[str] = []
    left = {each.id: each for each in packages}
    while left:
        needed = {requirement for each in left.values() for requirement in each.requires}
        free = [id_ for id_ in left if id_ not in needed] or list(left)
        ordered += free
        for id_ in free:
            del left[id_]
    return ordered
