"""`firebox packages build`: build packages from the built-in recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firebox.cli.completion import offer_recipes
from firebox.cli.packages.context import DATA_DIR_ROWS, AsJson, interruptible, with_settings
from firebox.cli.packages.output_tables import as_entry, format_size, print_json, select
from firebox.cli.packages.package_names import Selector, names_argument, read_recipe_selector, suggest_names
from firebox.cli.packages.progress import show_progress
from firebox.cli.packages.recipes_command import known_recipes, recipe_names
from firebox.domain.errors import BuildFailed, InvalidRequest, NotFound
from firebox.packages.entry import Report
from firebox.packages.repository.sources import built_folder
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from firebox.packages.building.build import Built
    from firebox.packages.building.recipe import Recipe


KEPT = "the package is kept: repeat the command to test it again, or run `firebox packages build --no-test` to accept it as it is"


@with_settings(DATA_DIR_ROWS)
def build(
    settings: Settings,
    packages: Annotated[list[str] | None, names_argument("Package names.", offer_recipes)] = None,
    all_needed: Annotated[
        bool, typer.Option("--all-needed", help="Build every package that is not in the output folder yet.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Output folder. Default: the repository `built`.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar="NAME=FILE", help="A file that a recipe requires; repeatable.")
    ] = None,
    test: Annotated[bool, typer.Option("--test/--no-test", help="Run the recipe's test program on the package.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build packages from the built-in recipes and run their test programs.

    Example: `firebox packages build haskell`, then `firebox packages install haskell`. Requires root, mmdebstrap, squashfs-tools
    and a Debian mirror: that of this machine's /etc/apt, or Debian's own. The first build for a Debian release also builds the
    base that its packages share.
    """
    sources = _sources(source or [])
    folder = output or built_folder(settings)
    if bool(packages) == all_needed:
        raise InvalidRequest("name packages, or use --all-needed", hint="`firebox packages recipes` lists the recipes")
    wanted = (
        _missing_recipes(folder, sources) if all_needed else [find_recipe(read_recipe_selector(word)) for word in packages or []]
    )
    check_recipes(wanted, sources)
    built: list[Built] = []
    try:
        with show_progress() as report, interruptible("only the packages listed above were built"):
            for recipe in wanted:
                built += [build_and_test(recipe, settings, folder, report, sources, test_package=test)]
    finally:
        if as_json:
            print_json([_as_json(each) for each in built])
        for each in () if as_json else built:
            print(f"built {each.entry.name} ({format_size(each.file.stat().st_size)}): {each.file}")


def build_and_test(
    recipe: Recipe, settings: Settings, folder: Path, report: Report, sources: Mapping[str, Path], *, test_package: bool = True
) -> Built:
    """Build a package and run its test program. A package that fails is not announced. Raises: BuildFailed, SandboxError."""
    from firebox.cli.packages.smoke_test import run_smoke_test
    from firebox.packages.building.build import build as build_package

    def test(built: Built, place: Path) -> None:
        try:
            run_smoke_test(recipe, built, settings, report, place)
        except BuildFailed as error:
            error.hint = "\n        ".join(filter(None, [error.hint, KEPT]))
            raise

    wanted = {each.name: sources[each.name] for each in recipe.supplied}
    return build_package(recipe, settings, folder, report, sources=wanted, test=test if test_package else None)


def find_recipe(selector: Selector) -> Recipe:
    """Find the recipe for a selector. Raises: NotFound with similar names as a hint."""
    from firebox.packages.building.recipe import find_recipe as find

    try:
        return find(selector.name, selector.version_range)
    except NotFound as error:
        series = [recipe.series for recipe in known_recipes() if recipe.package == selector.name]
        near = f"available recipes: {', '.join(series)}" if series else suggest_names(selector.name, recipe_names())
        error.hint = near or "`firebox packages recipes` lists the recipes"
        raise


def _sources(words: list[str]) -> dict[str, Path]:
    """Parse NAME=FILE options. Raises: InvalidRequest."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        if not (name and equals and file):
            raise InvalidRequest(f"{word!r} is not NAME=FILE", where="--source")
        if not Path(file).is_file():
            raise InvalidRequest(f"{file}: no such file", where="--source")
        found[name] = Path(file)
    return found


def check_recipes(recipes: Sequence[Recipe], sources: Mapping[str, Path]) -> None:
    """Check upfront that all files and programs exist. Raises: InvalidRequest, BuildFailed."""
    from firebox.packages.building.build import check_programs

    for recipe in recipes:
        for each in recipe.supplied:
            if each.name not in sources:
                hint = f"--source {each.name}=FILE" + (f"; {each.hint}" if each.hint else "")
                raise InvalidRequest(f"recipe {recipe.name} requires the file {each.name}", where="--source", hint=hint)
    if recipes:
        check_programs(recipes)


def _missing_recipes(folder: Path, sources: Mapping[str, Path]) -> list[Recipe]:
    """List the recipes whose package is missing from a folder, and report those skipped for lack of a file."""
    from firebox.packages.machine import fits
    from firebox.packages.publishing.publishing import list_folder
    from firebox.packages.versions import matching

    there = [entry for entry in list_folder(folder) if fits(entry.architecture)]
    found: list[Recipe] = []
    for recipe in known_recipes():
        if matching([entry for entry in there if entry.language == recipe.package], recipe.version):
            continue
        missing = [each.name for each in recipe.supplied if each.name not in sources]
        if missing:
            typer.echo(f"{recipe.name} skipped: it requires --source {missing[0]}=FILE", err=True)
        else:
            found.append(recipe)
    return found


def _as_json(built: Built) -> dict[str, Any]:
    file = {"file": str(built.file), "file_bytes": built.file.stat().st_size}
    return {**as_entry(built.entry), **file, **select(built.entry, "size_bytes", "checksums", "dependencies")}
