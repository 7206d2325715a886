"""What brings a language whose tools are not on this machine: a recipe of ours, or the host's own packages."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from firebox.runtimes.definition import Definition, read_definition, shipped_definitions

_RECIPES = Path(__file__).resolve().parent.parent / "recipes"
_LONGEST_NAME = 64


def named(definitions: Iterable[Definition], name: str) -> list[Definition]:
    """List the definitions that a name stands for: the language of that name first, then those it is an alias of.

    Of several the one with the highest rank comes first, as when it is to be run.
    """
    wanted = name.strip().lower()
    found = sorted(definitions, key=lambda definition: -definition.rank)
    own = [definition for definition in found if definition.language.lower() == wanted]
    return own + [each for each in found if each not in own and wanted in {alias.lower() for alias in each.aliases}]


def installing_hint(name: str, definitions: Iterable[Definition] | None = None) -> str:
    """Say how to install a language, "" when the name is unknown or nothing is known.

    definitions: those that come with Firebox when None. name: a language or an alias; may be anything a client sent.
    """
    wanted = name.strip().lower()
    if not wanted or len(wanted) > _LONGEST_NAME:
        return ""
    known = named(shipped_definitions(wanted) if definitions is None else definitions, wanted)
    recipe = wanted if wanted in _recipes() else next((each for one in known if (each := _recipe_of(one.language))), "")
    recipe = recipe or _recipe_with_own(wanted)
    if recipe:
        return f"`firebox packages install --build {recipe}` builds it; without --build it comes from your repositories"
    return next((words for definition in known if (words := definition.packages.words())), "")


@lru_cache(maxsize=1)
def _recipes() -> frozenset[str]:
    """The names of the recipes that come with Firebox."""
    return frozenset(file.parent.parent.name for file in _RECIPES.glob("*/*/recipe.toml"))


def _recipe_with_own(name: str) -> str:
    """Name the recipe that brings the definition of a language itself, "" when none does."""
    for file in sorted(_RECIPES.glob("*/*/runtimes/*.toml")):
        text = file.read_text(encoding="utf-8")
        if f'"{name}"' in text and named([read_definition(text, file.name)], name):
            return file.parents[2].name
    return ""


@lru_cache(maxsize=128)
def _recipe_of(language: str) -> str:
    """Name the recipe that builds a language, the one called so first; "" when there is none."""
    stems = {path.stem for path in _definition_files(language)}
    recipes: list[str] = []
    for file in sorted(_RECIPES.glob("*/*/recipe.toml")):
        text = file.read_text(encoding="utf-8")
        if any(f'"{stem}"' in text for stem in stems) and stems & set(tomllib.loads(text)["provides"]):
            recipes.append(file.parent.parent.name)
    return min(recipes, key=lambda recipe: (recipe != language, len(recipe), recipe), default="")


def _definition_files(language: str) -> list[Path]:
    line = f'language = "{language}"'
    files = (Path(__file__).parent / "definitions").glob("*.toml")
    return [file for file in files if line in file.read_text(encoding="utf-8").splitlines()]
