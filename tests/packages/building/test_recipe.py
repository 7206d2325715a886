"""Recipes: the built-in ones are valid, and invalid ones are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import BuildFailed, InvalidRequest, NotFound, SettingsError
from firebox.packages.building.recipe import all_recipes, find_recipe, read_recipe
from tests.packages.building.conftest import RECIPE, write_recipe

GOOD_HASH = "0" * 64
WHEEL = f'[[pypi]]\nname = "a"\nversion = "1"\nfile = "a-1-py3-none-any.whl"\nsha256 = "{GOOD_HASH}"\n'
TARBALL = '[[npm]]\nname = "a"\nversion = "1"\nintegrity = "sha512-{}=="\n'.format("A" * 86)

REFUSED = {
    "unknown key": ("script = 'x'", "script"),
    "wrong type": ("rank = 'high'", "rank"),
    "suite with an option in it": ("suite = '--x'", "suite"),
    "suite twice": ("suite = 'sid'", "recipe.toml is not valid TOML"),
    "a Debian package that is an option": ("debian = ['-o=x']", "debian"),
    "a Debian package with a shell line": ("debian = ['a; rm']", "debian"),
    "an alias with a space": ("aliases = ['a b']", "aliases"),
    "a wheel with a path": (WHEEL.replace("a-1-py3", "../a-1-py3"), "pypi.file"),
    "a wheel that is an option": (WHEEL.replace('name = "a"', 'name = "--index-url"'), "pypi.name"),
    "a wheel without a hash": (WHEEL.replace(GOOD_HASH, ""), "pypi.sha256"),
    "a wheel that goes anywhere": (WHEEL + "into = '/opt/../etc'\n", "into"),
    "a tarball that is an option": (TARBALL.replace('name = "a"', 'name = "-g"'), "npm.name"),
    "a tarball without its hash": (TARBALL.replace("sha512", "sha1"), "npm.integrity"),
    "a relative place": (TARBALL + "into = 'opt'\n", "into"),
    "supplied by a path": ("[[supplied]]\nname = '../x'\ninto = '/opt/x'", "supplied.name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    more, words = REFUSED[what]
    text = RECIPE.format(package="tiny")
    if more.startswith("suite") and "twice" not in what:
        text = text.replace('suite = "trixie"\n', "")
    (recipe.folder / "recipe.toml").write_text(text + more)
    with pytest.raises(BuildFailed, match=words):
        read_recipe(recipe.folder)


def test_recipe_limits_override_those_of_its_definitions(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "[run_limits]\nwall_ms = '15s'\n")
    assert [definition.limits("run").wall_ms for definition in recipe.definitions()] == [15_000]
    with pytest.raises(SettingsError, match="recipe tiny/1"):
        write_recipe(tmp_path, "[run_limits]\nwall = 15\n")


def test_its_name_must_match_its_folder(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    renamed = recipe.folder.parent.rename(tmp_path / "other") / "1"
    with pytest.raises(BuildFailed, match="package is 'tiny'; allowed: the name of the folder, other"):
        read_recipe(renamed)


def test_a_missing_definition_or_test_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (recipe.folder / "test" / "main.sh").unlink()
    with pytest.raises(BuildFailed, match=r"main\.sh cannot be read"):
        read_recipe(recipe.folder)
    recipe = write_recipe(tmp_path)
    (recipe.folder / "runtimes" / "tiny.toml").unlink()
    with pytest.raises(BuildFailed, match=r"tiny\.toml is neither"):
        read_recipe(recipe.folder)


def test_all_built_in_recipes_are_valid() -> None:
    recipes = all_recipes()
    assert {"bash", "lua", "python", "gcc"} <= {recipe.package for recipe in recipes}
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    for recipe in recipes:
        definitions = recipe.definitions()
        assert len(definitions) == len(recipe.provides)
        assert recipe.test_files()


def test_only_recipes_with_supplied_files_are_unverified() -> None:
    assert {recipe.package for recipe in all_recipes() if not recipe.verified} <= {"idris", "mercury", "sac", "elm"}


@pytest.mark.parametrize(
    ("name", "version_range", "found"),
    [
        ("python", "*", "python/3.13"),
        ("python", "3.13", "python/3.13"),
        ("python", "3.13.5", "python/3.13"),
        ("python", ">=3.13 <4", "python/3.13"),
        ("c++", "*", "gcc/14"),
        ("gcc", "14.2.0", "gcc/14"),
    ],
)
def test_recipes_are_found_by_name_and_version(name: str, version_range: str, found: str) -> None:
    assert find_recipe(name, version_range).name.split("/")[0] == found.split("/", maxsplit=1)[0]
    if version_range != "*":
        assert find_recipe(name, version_range).name == found


def test_an_unknown_recipe_is_reported() -> None:
    with pytest.raises(NotFound, match="klingon"):
        find_recipe("klingon")
    with pytest.raises(NotFound, match=r"python 1\.x"):
        find_recipe("python", "1.x")
    with pytest.raises(InvalidRequest, match="is not a valid version range"):
        find_recipe("python", "three")
