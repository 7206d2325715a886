"""What the tests of building share: one base for all of them, and recipes written on the spot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from firebox.config import Settings, load_settings
from firebox.packages import building
from firebox.packages.building.recipe import Recipe, read_recipe
from tests.conftest import missing, require_tool

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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that every process of this test run builds into: the base is made once.

    It is kept between runs where FIREBOX_PACKAGES_CACHE names a folder for that, until anything of how a base is made changes.
    """
    cache = os.environ.get("FIREBOX_PACKAGES_CACHE")
    if cache:
        code = b"".join(file.read_bytes() for file in sorted(Path(building.__path__[0]).glob("*.py")))
        folder = Path(cache, f"building-{hashlib.sha256(code).hexdigest()[:16]}")
    else:
        own = tmp_path_factory.getbasetemp()
        folder = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "building"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def output(shared: Path) -> Path:
    if os.geteuid() != 0:
        missing("building is tested as root")
    for tool in ("mmdebstrap", "mksquashfs", "unsquashfs"):
        require_tool(tool)
    return shared / "output"


@pytest.fixture(scope="session")
def settings(shared: Path) -> Settings:
    return load_settings({"data_dir": str(shared / "data")}, environ={})


def write_recipe(folder: Path, more: str = "", *, script: str = "", definition: str = "", test: str = "echo OK\n") -> Recipe:
    """Write a recipe of the package `tiny`, which has nothing but the base and its own script. more: lines of recipe.toml."""
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
