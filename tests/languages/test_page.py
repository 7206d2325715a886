"""docs/languages.md tells of every recipe. That it is current is tested with the other pages."""

from __future__ import annotations

from firebox.packages.building.recipe import all_recipes
from scripts.languages_page import languages_page


def test_every_recipe_is_on_the_page() -> None:
    page = languages_page()
    for recipe in all_recipes():
        assert f"| `{recipe.package}` |" in page
        for definition in recipe.definitions():
            assert f"`{definition.language}`" in page
