"""`firebox packages recipes`: list the built-in recipes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firebox.cli.packages.context import DATA_DIR_ROWS, AsJson, with_settings
from firebox.cli.packages.output_tables import print_json, print_rows, select
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from firebox.packages.building.recipe import Recipe


@with_settings(DATA_DIR_ROWS)
def recipes(
    _settings: Settings,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Only list recipes that contain all of these words.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in recipes, which `firebox packages build` can build.

    Example: `firebox packages recipes haskell`. A recipe that is not verified requires files that you supply with the `--source`
    option of `firebox packages build`.
    """
    found = [recipe for recipe in known_recipes() if contains_words(words or [], searchable_texts(recipe))]
    if as_json:
        print_json([_as_json(recipe) for recipe in found])
        return
    rows = [(recipe.package, recipe.series, recipe.suite, "yes" if recipe.verified else "no", recipe.summary) for recipe in found]
    print_rows(("PACKAGE", "SERIES", "SUITE", "VERIFIED", "WHAT"), rows)


def known_recipes() -> list[Recipe]:
    """Read all recipes, sorted by name and series."""
    from firebox.packages.building.recipe import all_recipes

    return all_recipes()


def recipe_names() -> list[str]:
    """List the packages that have recipes, without reading these."""
    folder = Path(str(resources.files("firebox"))) / "recipes"
    return sorted({file.parent.parent.name for file in folder.glob("*/*/recipe.toml")})


def packages_providing(language: str) -> list[str]:
    """List the packages of recipes that provide a language, by any of its names; exact names come before aliases."""
    own: list[str] = []
    by_alias: list[str] = []
    for recipe in known_recipes():
        for definition in recipe.definitions():
            if definition.language == language:
                own.append(recipe.package)
            elif language in {*definition.aliases, *recipe.aliases}:
                by_alias.append(recipe.package)
    return list(dict.fromkeys([*own, *by_alias]))


def searchable_texts(recipe: Recipe) -> list[str]:
    """Collect the searchable texts of a recipe."""
    names = [name for definition in recipe.definitions() for name in (definition.language, *definition.aliases)]
    brought = [*recipe.debian, *(wheel.name for wheel in recipe.pypi), *(tarball.name for tarball in recipe.npm)]
    return [recipe.package, recipe.series, recipe.summary, *recipe.aliases, *names, *brought]


def contains_words(words: Sequence[str], texts: Sequence[str]) -> bool:
    """Check whether the texts contain every word, ignoring case."""
    text = " ".join(texts).lower()
    return all(word.lower() in text for word in words)


def _as_json(recipe: Recipe) -> dict[str, Any]:
    supplied = [select(each, "name", "hint") for each in recipe.supplied]
    head = select(recipe, "package", "series", "version", "suite", "verified", "summary", "provides")
    return {**head, "supplied": supplied, "notes": recipe.notes}
