"""`firebox packages`: install, uninstall and list, with the real command and real packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from firebox.cli.packages.build_command import find_recipe
from firebox.cli.packages.package_names import read_recipe_selector
from firebox.cli.packages.packages_command import GROUPS, app
from tests.support.package_commands import PackageCommands, filled_folder
from tests.support.package_folder import PackageFolder
from tests.support.server import environment

COMMANDS = [name for commands in GROUPS.values() for name in commands]


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return filled_folder(tmp_path / "repository")


@pytest.fixture
def packages(tmp_path: Path, folder: PackageFolder) -> PackageCommands:
    return PackageCommands(tmp_path / "data", str(folder.path))


def test_a_fresh_machine_runs_a_language_after_one_command(packages: PackageCommands, tmp_path: Path) -> None:
    done = packages("install", "greet")
    assert (done.returncode, done.stdout.split(" (")[0]) == (0, "installed greet-2.0.0")
    program = tmp_path / "program.sh"
    program.write_text('echo "and so does $1"\n')
    ran = packages.run("run", "--language", "greet", str(program), "Ann")
    assert ran.stdout == "greet says hello from greet 2.0.0\nand so does Ann\n", ran.stderr
    assert "greet-2.0.0" in packages.run("runtimes").stdout


def test_dependencies_are_installed_with_a_package(packages: PackageCommands) -> None:
    installed = packages.json("install", "polite")
    assert [(each["id"], each["requires"]) for each in installed] == [("greet-1.2.0", []), ("polite-3.1.0", ["greet-1.2.0"])]


def test_several_packages_and_versions_coexist(packages: PackageCommands) -> None:
    packages.json("install", "greet@1.0.x", "greet=2.0.0", "picture", "greet-1.2.0")
    assert packages.installed() == ["greet-1.0.0", "greet-1.2.0", "greet-2.0.0", "picture-0.5.0"]


def test_installing_an_installed_package_succeeds(packages: PackageCommands) -> None:
    packages.json("install", "greet")
    done = packages("install", "greet", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    assert "greet-2.0.0 is already installed" in done.stderr


def test_a_corrupt_package_can_be_removed(packages: PackageCommands) -> None:
    packages.json("install", "greet")
    (packages.data / "packages" / "installed" / "greet-2.0.0" / "package.json").write_text("{")
    assert packages.json("uninstall", "greet-2.0.0") == ["greet-2.0.0"]
    packages.json("install", "greet")


def test_a_misspelled_name_changes_nothing_and_gets_suggestions(packages: PackageCommands) -> None:
    done = packages("install", "picture", "gret")
    assert done.returncode == 2
    assert "no such package: 'gret'" in done.stderr
    assert "did you mean greet" in done.stderr
    assert packages.installed() == []


def test_a_range_without_a_match_gets_the_available_versions(packages: PackageCommands) -> None:
    done = packages("install", "greet@7.x")
    assert done.returncode == 2
    assert "versions of greet: 2.0.0, 1.2.0, 1.0.0" in done.stderr


@pytest.mark.parametrize("word", ["greet@seven", "@1.x", "a b", "greet@"])
def test_an_invalid_package_name_is_rejected(packages: PackageCommands, word: str) -> None:
    done = packages("install", word)
    assert "a bug" not in done.stderr
    assert (done.returncode, packages.installed()) == ((0, ["greet-2.0.0"]) if word == "greet@" else (2, []))


def test_a_package_with_only_a_recipe_is_reported(packages: PackageCommands) -> None:
    done = packages("install", "lua")
    assert done.returncode == 2
    assert "firebox packages install --build lua" in done.stderr


@pytest.mark.parametrize(("language", "package"), [("c++", "gcc"), ("nodejs", "javascript")])
def test_a_language_provided_by_another_package_gets_a_hint(packages: PackageCommands, language: str, package: str) -> None:
    done = packages("install", language)
    assert done.returncode == 2
    assert re.search(rf"{re.escape(language)} is provided by .*{package}.*firebox packages install --build", done.stderr)


def test_without_a_repository_the_documentation_is_mentioned(tmp_path: Path) -> None:
    alone = PackageCommands(tmp_path / "data")
    assert "docs/operate/packages.md" in alone("list", "--available").stderr
    assert alone("install", "greet").returncode == 2


def test_a_file_is_installed_with_its_dependencies(packages: PackageCommands, folder: PackageFolder) -> None:
    installed = packages.json("install", str(folder.path / "polite-3.1.0.pkg.tar.gz"))
    assert [each["id"] for each in installed] == ["greet-1.2.0", "polite-3.1.0"]


def test_a_missing_file_changes_nothing(packages: PackageCommands) -> None:
    done = packages("install", "greet", "./missing.squashfs")
    assert (done.returncode, packages.installed()) == (2, [])
    assert "no such file" in done.stderr


def test_packages_installed_before_a_failure_are_kept_and_reported(packages: PackageCommands, folder: PackageFolder) -> None:
    (folder.path / "picture-0.5.0.squashfs").write_bytes(b"something else")
    done = packages("install", "greet", "picture", "polite")
    assert done.returncode == 125
    assert done.stdout.startswith("installed greet-2.0.0")
    assert "picture-0.5.0" in done.stderr
    assert packages.installed() == ["greet-2.0.0"]


def test_only_the_given_repository_is_searched(packages: PackageCommands, tmp_path: Path) -> None:
    other = PackageFolder(tmp_path / "other")
    other.path.mkdir()
    other.add_archive("greet", "9.0.0")
    packages.env["FIREBOX_REPOSITORIES"] += f" other={other.path}"
    assert [each["id"] for each in packages.json("install", "greet")] == ["greet-2.0.0"]
    assert [each["id"] for each in packages.json("install", "greet", "--repository", "other")] == ["greet-9.0.0"]
    assert packages("install", "greet", "--repository", "third").returncode == 2


def test_packages_are_removed_in_dependency_order(packages: PackageCommands) -> None:
    packages.json("install", "polite", "greet")
    assert packages.json("uninstall", "greet", "polite") == ["greet-2.0.0", "polite-3.1.0", "greet-1.2.0"]
    assert packages.installed() == []


def test_a_required_package_is_not_removed(packages: PackageCommands) -> None:
    packages.json("install", "polite")
    done = packages("uninstall", "greet")
    assert done.returncode == 2
    assert "polite-3.1.0" in done.stderr
    assert packages.installed() == ["greet-1.2.0", "polite-3.1.0"]


def test_a_package_that_is_not_installed_cannot_be_removed(packages: PackageCommands) -> None:
    packages.json("install", "greet")
    assert "versions of greet: 2.0.0" in packages("uninstall", "greet@1.x").stderr
    done = packages("uninstall", "great")
    assert done.returncode == 2
    assert "did you mean greet?" in done.stderr


def test_the_list_shows_packages_and_their_runtimes(packages: PackageCommands) -> None:
    packages.json("install", "greet@1.2.0")
    (entry,) = packages.json("list")
    assert (entry["package"], entry["version"], entry["repository"]) == ("greet", "1.2.0", "main")
    assert entry["runtimes"] == [{"language": "greet", "version": "1.2.0", "aliases": ["hello"]}]
    heading, row = packages("list").stdout.splitlines()
    assert heading.split() == ["PACKAGE", "VERSION", "SIZE", "FROM", "SINCE", "BRINGS"]
    assert row.split()[:2] == ["greet", "1.2.0"]


def test_available_packages_are_listed_newest_first(packages: PackageCommands) -> None:
    packages.json("install", "greet")
    rows = [(each["package"], each["version"], each["installed"]) for each in packages.json("list", "--available")]
    assert sorted(rows) == [
        ("greet", "1.0.0", False),
        ("greet", "1.2.0", False),
        ("greet", "2.0.0", True),
        ("picture", "0.5.0", False),
        ("polite", "3.1.0", False),
    ]
    lines = packages("list", "--available").stdout.splitlines()[1:]
    assert [" ".join(line.split()[:2]) for line in lines][:3] == ["greet 2.0.0", "greet 1.2.0", "greet 1.0.0"]


def test_search_covers_repositories_and_recipes(packages: PackageCommands) -> None:
    packages.json("install", "greet@1.0.0")
    (found,) = packages.json("search", "GREE")
    assert (found["versions"], found["installed"], found["recipes"]) == (["2.0.0", "1.2.0", "1.0.0"], ["1.0.0"], [])
    assert "haskell" in [each["package"] for each in packages.json("search", "ghc")]
    done = packages("search", "no such thing anywhere")
    assert (done.returncode, done.stdout) == (1, "")


def test_info_shows_all_details_of_a_package(packages: PackageCommands) -> None:
    packages.json("install", "polite")
    known = packages.json("info", "polite")
    assert known["dependencies"] == {"greet": "1.x"}
    assert known["installed"]["requires"] == ["greet-1.2.0"]
    assert set(known["checksums"]) == {"sha256"}
    text = packages("info", "greet@1.x").stdout
    assert "version       1.2.0" in text
    assert "all versions  2.0.0, 1.2.0, 1.0.0" in text
    assert packages("info", "greet@9.x").returncode == 2


def test_recipes_are_listed_with_their_summaries(packages: PackageCommands) -> None:
    everything = packages.json("recipes")
    assert {"package", "series", "suite", "verified", "summary"} <= set(everything[0])
    assert {"bash", "haskell", "elm"} <= {each["package"] for each in everything}
    assert not next(each for each in everything if each["package"] == "elm")["verified"]
    assert [each["package"] for each in packages.json("recipes", "glasgow")] == [
        each["package"] for each in everything if "glasgow" in each["summary"].lower()
    ]


def test_a_recipe_is_not_built_without_its_supplied_file(packages: PackageCommands) -> None:
    done = packages("build", "elm")
    assert done.returncode == 2
    assert "--source" in done.stderr
    assert not (packages.data / "packages").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build"], "--all-needed"),
        (["build", "bahs"], "did you mean bash"),
        (["build", "elm", "--source", "elm"], "NAME=FILE"),
        (["build", "elm", "--source", "a=missing"], "no such file"),
        (["build", "bash@1.x"], "available recipes"),
    ],
)
def test_impossible_builds_are_rejected_upfront(packages: PackageCommands, arguments: list[str], words: str) -> None:
    done = packages(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_repositories_are_listed_with_their_state(packages: PackageCommands, folder: PackageFolder) -> None:
    (seen,) = packages.json("repos")
    assert (seen["name"], seen["packages"], seen["trusted"]) == ("main", 5, [])
    folder.add_archive("greet", "2.1.0")
    assert packages("sync").stdout == "main: 6 packages\n"
    assert packages("sync", "other").returncode == 2


def test_an_unreadable_repository_is_reported(packages: PackageCommands, folder: PackageFolder) -> None:
    (folder.path / "index.yaml").write_text("[")
    assert packages("sync").returncode == 125
    assert packages("install", "greet").returncode == 125
    done = packages("repos")
    assert done.returncode == 0
    assert "repository main" in done.stderr


def test_the_help_of_every_command_has_an_example() -> None:
    commands: dict[str, Any] = getattr(get_command(app), "commands", {})
    assert list(commands) == COMMANDS
    assert [name for name, command in commands.items() if f"firebox packages {name}" not in command.help] == []


def test_help_lists_every_command(packages: PackageCommands) -> None:
    text = packages("--help").stdout
    assert [name for name in COMMANDS if name not in text] == []


def test_libraries_are_imported_late() -> None:
    program = "import firebox.cli.packages.packages_command, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True, timeout=60
    )
    assert not set(done.stdout.split()) & {"httpx", "resolvelib", "pysequoia", "yaml", "litestar"}


@pytest.mark.parametrize("word", ["java/21", "java@21", "java@21.x"])
def test_a_recipe_can_be_given_with_its_series_in_two_spellings(word: str) -> None:
    assert find_recipe(read_recipe_selector(word)).name == "java/21"
