"""`firebox packages apply`: installed packages change to those of a spec file, atomically."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.package_commands import PackageCommands, filled_folder
from tests.support.package_folder import PackageFolder


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return filled_folder(tmp_path / "repository")


@pytest.fixture
def packages(tmp_path: Path, folder: PackageFolder) -> PackageCommands:
    return PackageCommands(tmp_path / "data", str(folder.path))


def test_missing_packages_are_installed_and_unselected_ones_removed(packages: PackageCommands, tmp_path: Path) -> None:
    packages.json("install", "greet@1.0.0", "picture")
    spec = tmp_path / "languages.pps"
    spec.write_text("# what we teach\n*t* *\n!p* *\n")
    done = packages("apply", str(spec))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "install  greet-2.0.0 from main (4.1 kB)",
        "remove   greet-1.0.0",
        "remove   picture-0.5.0",
        "installed greet-2.0.0",
        "removed greet-1.0.0",
        "removed picture-0.5.0",
    ]
    assert packages.installed() == ["greet-2.0.0"]
    assert packages("apply", str(spec)).stdout == "nothing to do: the installed packages match the file\n"


def test_dependencies_of_selected_packages_are_kept(packages: PackageCommands) -> None:
    packages.json("install", "polite", "greet")
    outcome = packages.json("apply", "-", stdin="polite *")
    assert (outcome["installed"], outcome["removed"], outcome["failed"]) == ([], ["greet-2.0.0"], [])
    assert packages.installed() == ["greet-1.2.0", "polite-3.1.0"]


def test_an_installed_dependency_of_a_new_package_is_kept(packages: PackageCommands) -> None:
    packages.json("install", "greet@1.0.0")
    outcome = packages.json("apply", "-", stdin="polite *")
    assert [each["id"] for each in outcome["installed"]] == ["polite-3.1.0"]
    assert packages.installed() == ["greet-1.0.0", "polite-3.1.0"]


def test_a_dry_run_prints_the_plan_and_changes_nothing(packages: PackageCommands) -> None:
    packages.json("install", "greet@1.0.0")
    plan = packages.json("apply", "-", "--dry-run", stdin="picture")
    assert ([each["package"] for each in plan["install"]], plan["remove"]) == (["picture"], ["greet-1.0.0"])
    assert packages.installed() == ["greet-1.0.0"]


def test_a_misspelled_name_removes_nothing(packages: PackageCommands) -> None:
    packages.json("install", "greet")
    done = packages("apply", "-", stdin="# line 1\npicture *\ngret *")
    assert done.returncode == 2
    assert "line 3: nothing matches 'gret *'" in done.stderr
    assert "did you mean greet?" in done.stderr
    assert packages.installed() == ["greet-2.0.0"]
    ignoring = packages("apply", "-", "--ignore-missing", stdin="picture *\ngret *")
    assert ignoring.returncode == 0
    assert "line 2: nothing matches 'gret *'" in ignoring.stderr
    assert packages.installed() == ["picture-0.5.0"]


@pytest.mark.parametrize("spec", ["", "# nothing\n", "greet\n!greet", "x*"])
def test_removing_all_packages_requires_yes(packages: PackageCommands, spec: str) -> None:
    packages.json("install", "greet")
    done = packages("apply", "-", stdin=spec)
    assert done.returncode == 2
    assert "every package would be removed" in done.stderr
    assert packages.installed() == ["greet-2.0.0"]
    assert packages("apply", "-", "--yes", stdin=spec).returncode == 0
    assert packages.installed() == []


def test_nothing_is_removed_after_a_failed_installation(packages: PackageCommands, folder: PackageFolder) -> None:
    packages.json("install", "greet@1.0.0")
    (folder.path / "picture-0.5.0.squashfs").write_bytes(b"something else")
    done = packages("apply", "-", "--json", stdin="picture\ngreet")
    assert done.returncode == 125
    outcome = json.loads(done.stdout)
    assert [each["id"] for each in outcome["installed"]] == ["greet-2.0.0"]
    assert outcome["removed"] == []
    assert [each["package"] for each in outcome["failed"]] == ["picture-0.5.0"]
    assert "failed: picture-0.5.0; nothing was removed" in done.stderr
    assert packages.installed() == ["greet-1.0.0", "greet-2.0.0"]


def test_a_selected_package_that_left_its_repository_is_kept(packages: PackageCommands) -> None:
    packages.json("install", "greet", "picture")
    packages.env["FIREBOX_REPOSITORIES"] = ""
    assert packages.json("apply", "-", stdin="greet *")["removed"] == ["picture-0.5.0"]
    assert packages.installed() == ["greet-2.0.0"]


def test_a_new_version_is_found_after_a_sync(packages: PackageCommands, folder: PackageFolder) -> None:
    packages.json("install", "greet")
    folder.add_archive("greet", "2.1.0")
    outcome = packages.json("apply", "-", "--sync", stdin="greet *")
    assert ([each["id"] for each in outcome["installed"]], outcome["removed"]) == (["greet-2.1.0"], ["greet-2.0.0"])


@pytest.mark.parametrize(("spec", "words"), [("greet three", "line 1"), ("\n!", "line 2"), ("\0\udcff", "UTF-8")])
def test_an_unreadable_file_changes_nothing(packages: PackageCommands, tmp_path: Path, spec: str, words: str) -> None:
    file = tmp_path / "spec"
    file.write_bytes(spec.encode(errors="surrogateescape"))
    done = packages("apply", str(file))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert packages("apply", str(tmp_path / "missing")).returncode == 2
