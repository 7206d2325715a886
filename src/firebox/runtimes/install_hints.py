"""Hints on how to install a missing language: a recipe of ours, or packages of the host."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from firebox.runtimes.definition import Definition, read_definition, shipped_definitions

_RECIPES = Path(__file__).resolve().parent.parent / "recipes"
_LONGEST_NAME = 64


def named(definitions: Iterable[Definition], name: str) -> list[Definition]:
    """Return the definitions that a name stands for: the language of that name, then those with this alias.

    The one with the highest rank comes first, as when a runtime is selected.
    """
    wanted = name.strip().lower()
    found = sorted(definitions, key=lambda definition: -definition.rank)
    own = [definition for definition in found if definition.language.lower() == wanted]
    return own + [each for each in found if each not in own and wanted in {alias.lower() for alias in each.aliases}]


def installing_hint(name: str, definitions: Iterable[Definition] | None = None) -> str:
    """Return how to install a language, or "" if unknown. definitions: by default ours. name: or an alias; untrusted input."""
    if not name.strip() or len(name) > _LONGEST_NAME:
        return ""
    known = named(shipped_definitions(name.strip().lower()) if definitions is None else definitions, name)
    if recipe := _recipe_for(name, known):
        return f"`firebox packages install --build {recipe}` builds it; without --build it is installed from your repositories"
    return next((words for definition in known if (words := definition.packages.words())), "")


def building_hint(name: str) -> str:
    """Return how to build what no repository has, or "" without a recipe. name: as for `installing_hint`."""
    if not name.strip() or len(name) > _LONGEST_NAME:
        return ""
    recipe = _recipe_for(name, named(shipped_definitions(name.strip().lower()), name))
    return f"Firebox has a recipe: `firebox packages install --build {recipe}` builds and installs it" if recipe else ""


@lru_cache(maxsize=1)
def _recipes() -> frozenset[str]:
    """Return the names of the recipes that ship with Firebox."""
    return frozenset(file.parent.parent.name for file in _RECIPES.glob("*/*/recipe.toml"))


def _recipe_for(name: str, known: Iterable[Definition]) -> str:
    """Return the recipe that installs a language, or "". known: the definitions of this name."""
    wanted = name.strip().lower()
    if wanted in _recipes():
        return wanted
    return next((recipe for one in known if (recipe := _recipe_of(one.language))), "") or _recipe_with_own(wanted)


def _recipe_with_own(name: str) -> str:
    """Return the recipe that contains the definition of a language, or ""."""
    for file in sorted(_RECIPES.glob("*/*/runtimes/*.toml")):
        text = file.read_text(encoding="utf-8")
        if f'"{name}"' in text and named([read_definition(text, file.name)], name):
            return file.parents[2].name
    return ""


@lru_cache(maxsize=128)
def _recipe_of(language: str) -> str:
    """Return the recipe that builds a language, preferably the one of that name, or ""."""
    line = f'language = "{language}"'
    files = (Path(__file__).parent / "definitions").glob("*.toml")
    stems = {file.stem for file in files if line in file.read_text(encoding="utf-8").splitlines()}
    recipes: list[str] = []
    for file in sorted(_RECIPES.glob("*/*/recipe.toml")):
        text = file.read_text(encoding="utf-8")
        if any(f'"{stem}"' in text for stem in stems) and stems & set(tomllib.loads(text)["provides"]):
            recipes.append(file.parent.parent.name)
    return min(recipes, key=lambda recipe: (recipe != language, len(recipe), recipe), default="")
