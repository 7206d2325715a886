"""docs/reference/languages.md lists every recipe, and other pages name the same number of languages."""

from __future__ import annotations

import re

from firebox.packages.building.recipe import all_recipes
from scripts.languages_page import languages_page
from tests.conftest import ROOT


def test_every_recipe_is_on_the_page() -> None:
    page = languages_page()
    for recipe in all_recipes():
        assert f"| `{recipe.package}` |" in page
        for definition in recipe.definitions():
            assert f"`{definition.language}`" in page


def test_every_page_counts_the_same_languages() -> None:
    recipes = [recipe for recipe in all_recipes() if recipe.verified]
    languages = {definition.language for recipe in recipes for definition in recipe.definitions()}
    assert f"{len(languages)} languages in {len(recipes)} packages." in languages_page()
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    counted = {
        str(page.relative_to(ROOT)): set(re.findall(r"\b(\d+) languages\b", page.read_text(encoding="utf-8"))) for page in pages
    }
    wrong = {name: numbers for name, numbers in counted.items() if numbers - {str(len(languages))}}
    assert wrong == {}
    assert counted["README.md"]
    assert counted["CHANGELOG.md"]
