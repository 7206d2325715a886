"""docs/languages.md is what the recipes and the measurements say."""

from __future__ import annotations

from firebox.packages.building.recipe import all_recipes
from scripts.write_languages import PAGE, languages_page


def test_the_page_is_what_would_be_written() -> None:
    assert PAGE.read_text(encoding="utf-8") == languages_page(), "run: .venv/bin/python -m scripts.write_languages"


def test_every_recipe_is_on_the_page() -> None:
    page = languages_page()
    for recipe in all_recipes():
        assert f"| `{recipe.package}` |" in page
        for definition in recipe.definitions():
            assert f"`{definition.language}`" in page
