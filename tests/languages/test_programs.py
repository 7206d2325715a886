"""The programs themselves: every language of every recipe has all eight, or says why not."""

from __future__ import annotations

import pytest

from firebox.runtimes.definition import shipped_definitions
from tests.support.languages import PROGRAMS, each_program, read_programs
from tests.support.package_workshop import recipes

PROVIDED = sorted({stem for recipe in recipes() for stem in recipe.provides})


@pytest.mark.parametrize("stem", PROVIDED)
def test_every_packaged_language_has_all_programs(stem: str) -> None:
    programs = read_programs(stem)
    for kind, program in each_program(programs):
        assert bool(program.files) != bool(program.without), f"{kind}: files, or the reason why there are none"
        assert program.stdout is None or program.why, f"{kind}: another stdout needs a reason"
    assert programs.two_files.without or len(programs.two_files.files) > 1


def test_every_program_is_of_a_packaged_language() -> None:
    assert {file.stem for file in PROGRAMS.glob("*.toml")} == set(PROVIDED)


def test_a_selector_is_a_name_of_what_it_is_for() -> None:
    names = {
        stem: {definition.language, *definition.aliases}
        for recipe in recipes()
        for stem, definition in zip(recipe.provides, recipe.definitions(), strict=True)
    }
    wrong = {stem: read_programs(stem).selector for stem in PROVIDED if read_programs(stem).selector not in names[stem]}
    assert wrong == {}


def test_every_definition_that_names_debian_packages_has_a_recipe() -> None:
    packaged = {definition.language for recipe in recipes() for definition in recipe.definitions()}
    without = {each.language for each in shipped_definitions() if each.packages.debian and each.language not in packaged}
    assert without == set()
