"""Fixtures for building: a shared base, and recipes written on the fly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from firebox.packages.building.recipe import Recipe, read_recipe
from firebox.settings.settings import Settings
from tests.conftest import missing
from tests.support.package_workshop import Workshop

RECIPE = """
package = "{package}"
summary = "For a test"
provides = ["{package}"]
version = "1.x"
suite = "trixie"
test = ["main.sh"]
"""

DEFINITION = """
language = "{package}"
extensions = [".sh"]
main_name = "main.sh"
run = ["{{tool}}", "{{main}}"]

[detect]
programs = ["sh"]
command = ["echo", "1.2.3"]
"""


@pytest.fixture(scope="session")
def output(package_workshop: Workshop) -> Path:
    if os.geteuid() != 0:
        missing("building is tested as root")
    return package_workshop.repository


@pytest.fixture(scope="session")
def settings(package_workshop: Workshop) -> Settings:
    return package_workshop.settings


def write_recipe(folder: Path, more: str = "", *, script: str = "", definition: str = "", test: str = "echo OK\n") -> Recipe:
    """Write a recipe of the package `tiny`, which only consists of a script. more: lines of recipe.toml."""
    files: Mapping[str, str] = {
        "recipe.toml": RECIPE.format(package="tiny") + more,
        "runtimes/tiny.toml": definition or DEFINITION.format(package="tiny"),
        "test/main.sh": test,
        **({"build.sh": script} if script else {}),
    }
    place = folder / "tiny" / "1"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return read_recipe(place)
