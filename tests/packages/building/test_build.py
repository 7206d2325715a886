"""Real package builds from this machine's Debian mirror: contents, reproducibility, failures."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from firebox.cli.packages.build_command import build_and_test, check_recipes
from firebox.cli.packages.smoke_test import run_smoke_test
from firebox.domain.errors import BuildFailed
from firebox.packages.building.base import Base
from firebox.packages.building.build import Built, build
from firebox.packages.building.recipe import AUTHOR, Recipe, find_recipe
from firebox.packages.building.squash import read_beside, write_tree_as_tar
from firebox.packages.building.untested import UntestedPackage
from firebox.packages.entry import Progress, no_report
from firebox.packages.installed.store import INFO, RUNTIMES
from firebox.packages.publishing.publishing import list_folder
from firebox.packages.repository.index import parse_index
from firebox.packages.repository.sources import INDEX_NAME, file_url, path_of_url
from firebox.settings.settings import Settings, load_settings
from tests.packages.building.conftest import write_recipe
from tests.support.package_workshop import Workshop

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]
"""The first test builds the base of a Debian release."""


def names_in(image: Path, folder: Path) -> dict[str, tarfile.TarInfo]:
    write_tree_as_tar(image, folder / "tree.tar")
    with tarfile.open(folder / "tree.tar") as tar:
        return {member.name.removeprefix("./"): member for member in tar}


def elsewhere(output: Path, folder: Path) -> Path:
    """Return another output folder with the same base."""
    folder.mkdir()
    for file in output.glob("debian-*.squashfs"):
        shutil.copy(file, folder)
    return folder


def built_in(workshop: Workshop, package: str) -> Built:
    entry = workshop.package(find_recipe(package))
    return Built(file=path_of_url(entry.download), entry=entry)


@pytest.fixture(scope="module")
def lua(output: Path, package_workshop: Workshop) -> Built:
    return built_in(package_workshop, "lua")


def test_a_package_contains_only_what_its_base_lacks(lua: Built, tmp_path: Path) -> None:
    information = json.loads(read_beside(lua.file, INFO))
    (runtime,) = json.loads(read_beside(lua.file, RUNTIMES))
    assert (information["language"], information["version"]) == ("lua", runtime["version"])
    assert information["dependencies"] == {"debian-trixie": lua.entry.dependencies["debian-trixie"]}
    assert [line.split()[1] for line in information["inputs"] if line.startswith("deb lua5.4 ")] == ["lua5.4"]
    assert all(len(line.split()) == 4 and len(line.split()[3]) == 64 for line in information["inputs"])
    assert runtime["run"] == ["/usr/bin/lua", "{main}"]
    assert not {"mounts", "layers", "on_host", "installed"} & runtime.keys()
    names = names_in(lua.file, tmp_path)
    assert "usr/bin/lua5.4" in names
    assert "usr/bin/bash" not in names
    assert not [name for name in names if name.startswith(("var/lib/dpkg", "var/cache/", "firebox-building", "usr/share/man/"))]
    assert {(each.uid, each.gid, each.mode & 0o6000) for each in names.values()} == {(0, 0, 0)}
    assert all(each.mode & 0o444 == 0o444 for each in names.values())


def test_the_base_records_its_release_and_inputs(lua: Built, tmp_path: Path) -> None:
    version = lua.entry.dependencies["debian-trixie"]
    base = next(lua.file.parent.glob(f"debian-trixie-{version}-*.squashfs"))
    information = json.loads(read_beside(base, INFO))
    assert version.startswith("13.")
    assert len(version.split(".")[2]) == len("20260905")
    assert any(line.startswith("deb libc6 ") for line in information["inputs"])
    assert information["provides"] == []
    names = names_in(base, tmp_path)
    assert {"usr/bin/bash", "usr/share/zoneinfo/Europe/Vienna", "var/lib/dpkg/status"} <= names.keys()
    assert not [name for name in names if name.startswith(("etc/apt", "var/log/", "usr/share/locale/", "etc/shadow"))]


def test_package_and_base_are_in_the_folders_index(lua: Built) -> None:
    file = lua.file.parent / INDEX_NAME
    index = parse_index(file.read_bytes(), repository="built", location=file_url(file))
    found = {entry.language: entry for entry in index.entries}
    assert msgspec.structs.replace(found["lua"], repository="") == lua.entry
    assert found["debian-trixie"].version == lua.entry.dependencies["debian-trixie"]
    assert lua.entry.size_bytes > lua.file.stat().st_size
    for entry in found.values():
        assert entry.author == AUTHOR
        build_file = path_of_url(entry.buildfile)
        assert build_file.parent == lua.file.parent
        assert build_file.read_text().startswith("# Made by: ")
    recipe = path_of_url(lua.entry.buildfile).read_text()
    for name, text in find_recipe("lua").texts().items():
        assert f"==> {name} <==\n{text.rstrip()}\n" in recipe


def test_its_test_program_prints_ok(lua: Built, settings: Settings) -> None:
    run_smoke_test(find_recipe("lua"), lua, settings, no_report, lua.file.parent)


def test_builds_are_reproducible(lua: Built, output: Path, settings: Settings, tmp_path: Path) -> None:
    again = build(find_recipe("lua"), settings, elsewhere(output, tmp_path / "again"))
    assert again.file != lua.file
    assert again.entry.checksums == lua.entry.checksums


def test_a_language_that_is_part_of_the_base_is_still_a_package(
    output: Path, package_workshop: Workshop, settings: Settings, tmp_path: Path
) -> None:
    first = built_in(package_workshop, "bash")
    second = build(find_recipe("bash"), settings, elsewhere(output, tmp_path / "again"))
    assert first.entry.checksums == second.entry.checksums
    assert "usr/bin/bash" not in names_in(first.file, tmp_path)
    run_smoke_test(find_recipe("bash"), first, settings, no_report, first.file.parent)


def test_bases_are_reproducible(lua: Built, settings: Settings, tmp_path: Path) -> None:
    again = build(write_recipe(tmp_path), settings, tmp_path / "again")
    base = next(again.file.parent.glob("debian-trixie-*.squashfs"))
    assert base.read_bytes() == (lua.file.parent / base.name).read_bytes()


EVERYTHING = """
language = "tiny"
aliases = ["minute"]
extensions = [".sh"]
main_name = "main.sh"
run = ["{tool}", "{helper}", "{prepared}/made", "{prefix}/share", "{folder}", "{main}"]
prepare = [["sh", "-c", "tr a-z A-Z < source > $PREPARED/made"], ["{helper}", "{prepared}/more"]]
prepare_files = { source = "it's {tool} and $HOME" }

[env]
TINY = "{prefix}/lib"

[detect]
programs = ["no-such-thing", "tiny-[0-9]", "tiny"]
locate = ["--where"]
version = ["--version"]
pattern = 'tiny (\\S+)'

[tools.helper]
programs = ["helper-*", "helper"]

[commands]
minute = "{tool}"
help-me = "{folder}/helper"
sh = "{tool}"
nothing = "{folder}/nothing"
"""

SCRIPT = r"""
mkdir -p /opt/tiny/bin
printf '#!/bin/sh\ncase $1 in --where) echo /opt/tiny/bin/real;; *) echo shim; exit 9;; esac\n' > /usr/local/bin/tiny
printf '#!/bin/sh\n[ "$1" != --version ] || { echo tiny 1.4; exit; }\nshift 4; exec sh "$@"\n' > /opt/tiny/bin/real
printf '#!/bin/sh\necho "$SOURCE_DATE_EPOCH" > "$1"\n' > /opt/tiny/bin/helper
chmod 755 /usr/local/bin/tiny /opt/tiny/bin/*
echo '#!/bin/sh' > /usr/local/bin/tiny-3; chmod 755 /usr/local/bin/tiny-3
test "$(grep -c : /proc/net/dev)" = 1
"""


def test_all_placeholders_of_a_definition_are_resolved_in_the_root(output: Path, settings: Settings, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, 'aliases = ["little"]\nrank = -3\n', script=SCRIPT, definition=EVERYTHING)
    built = build(recipe, settings, elsewhere(output, tmp_path / "out"))
    (runtime,) = json.loads(read_beside(built.file, RUNTIMES))
    assert runtime["version"] == "1.4.0"
    # The symlink is a shim for another program; the pattern match is a script, which is ignored.
    assert runtime["run"] == [
        "/opt/tiny/bin/real", "/opt/tiny/bin/helper", "/opt/firebox/prepared/tiny/made", "/opt/tiny/share", "/opt/tiny/bin",
        "{main}",
    ]  # fmt: skip
    assert runtime["env"] == {"TINY": "/opt/tiny/lib", "PATH": "/opt/tiny/bin:/usr/local/bin:/usr/bin:/bin"}
    assert (runtime["aliases"], runtime["rank"], runtime["package"]) == (["minute", "little"], -3, None)
    write_tree_as_tar(built.file, tmp_path / "tree.tar")
    with tarfile.open(tmp_path / "tree.tar") as tar:
        assert tar.getmember("./usr/local/bin/minute").linkname == "/opt/tiny/bin/real"
        assert tar.getmember("./usr/local/bin/help-me").linkname == "/opt/tiny/bin/helper"
        # One is already a command; the other has no program.
        assert not {"./usr/local/bin/sh", "./usr/local/bin/nothing"} & set(tar.getnames())
        made, more = (tar.extractfile(f"./opt/firebox/prepared/tiny/{name}") for name in ("made", "more"))
        assert made is not None
        assert made.read() == b"IT'S {TOOL} AND $HOME"
        assert more is not None
        assert int(more.read()) > 1_700_000_000
    run_smoke_test(recipe, built, settings, no_report, built.file.parent)


def test_a_variant_has_the_name_of_its_package(output: Path, settings: Settings, tmp_path: Path) -> None:
    definition = EVERYTHING.replace('language = "tiny"', 'language = "small"')
    built = build(write_recipe(tmp_path, script=SCRIPT, definition=definition), settings, elsewhere(output, tmp_path / "out"))
    (runtime,) = json.loads(read_beside(built.file, RUNTIMES))
    assert (runtime["language"], runtime["package"]) == ("small", "tiny")


BROKEN = {
    "a script that fails": (
        {"script": "echo these words >&2; false; true"},
        "mmdebstrap failed",
        "these words\n        build.sh failed",
    ),
    "an unknown package": ({"more": 'debian = ["no-such-package-anywhere"]\n'}, "mmdebstrap failed", "no-such-package-anywhere"),
    "no such program": ({"definition": EVERYTHING}, "tiny does not work in the built package", "there is no no-such-thing or"),
    "a program that fails": (
        {"script": SCRIPT.replace("echo tiny 1.4; exit", "echo why >&2; exit 4"), "definition": EVERYTHING},
        "tiny does not work in the built package",
        "failed with status 4\nwhy",
    ),
    "a helper that is missing": (
        {"script": SCRIPT + "rm /opt/tiny/bin/helper", "definition": EVERYTHING},
        "tiny does not work in the built package",
        "there is no helper-*",
    ),
    "preparing fails": (
        {"script": SCRIPT.replace("echo \"$SOURCE", "exit 3; echo \"$SOURCE"), "definition": EVERYTHING},
        "tiny does not work in the built package",
        "preparing failed",
    ),
    "another version": (
        {"script": SCRIPT.replace("tiny 1.4", "tiny 2.4"), "definition": EVERYTHING},
        "the built version 2.4.0 is not in the range 1.x",
        "another Debian release",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_build_failure_is_explained_and_leaves_nothing_behind(
    what: str, output: Path, lua: Built, settings: Settings, tmp_path: Path
) -> None:
    given, message, hint = BROKEN[what]
    folder = elsewhere(lua.file.parent, tmp_path / "out")
    with pytest.raises(BuildFailed, match=message) as refused:
        build(write_recipe(tmp_path, **given), settings, folder)
    assert hint in refused.value.hint
    left = {name for name in os.listdir(folder) if not name.endswith(".lock")}
    assert left - {"index", "index.yaml"} == {file.name for file in output.glob("debian-*.squashfs")}


def test_a_failing_test_program_is_reported_with_its_output(lua: Built, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"lua-\S+: the test program did not print OK") as refused:
        run_smoke_test(_with_program(tmp_path, "print('not', 'OK')"), lua, settings, no_report, lua.file.parent)
    assert refused.value.hint == "not\tOK"
    with pytest.raises(BuildFailed, match="did not print OK: runtime_error") as refused:
        run_smoke_test(_with_program(tmp_path, "error('dear me')"), lua, settings, no_report, lua.file.parent)
    assert "dear me" in refused.value.hint


def test_reports_progress(output: Path, settings: Settings, tmp_path: Path) -> None:
    seen: list[Progress] = []
    build(write_recipe(tmp_path), settings, elsewhere(output, tmp_path / "out"), seen.append)
    assert {(each.package, each.step) for each in seen} == {("tiny", "build")}
    assert seen[-1].words.startswith("tiny-1.2.3-")


def test_missing_programs_are_reported_before_the_build(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildFailed, match="mmdebstrap, mksquashfs, unsquashfs, npm are not installed") as refused:
        check_recipes([find_recipe("lua"), find_recipe("befunge93")], {})
    assert refused.value.hint == "apt-get install mmdebstrap squashfs-tools npm"
    with pytest.raises(BuildFailed, match="mmdebstrap, mksquashfs, unsquashfs are not installed"):
        build(find_recipe("lua"), settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_that_fails_its_test_is_kept_and_only_tested_again(
    output: Path, package_workshop: Workshop, tmp_path: Path
) -> None:
    # Clients are limited to 0.3 s; tests have separate limits.
    limits = {f"{prefix}run_{name}_ms": "300" for prefix in ("", "max_") for name in ("wall", "cpu")}
    settings = load_settings({**package_workshop.settings_given, **limits}, environ={})
    folder = elsewhere(output, tmp_path / "out")
    seen: list[Progress] = []
    with pytest.raises(BuildFailed, match="the test program did not print OK") as refused:
        build_and_test(write_recipe(tmp_path, test="echo KO"), settings, folder, seen.append, {})
    assert "the package is kept" in refused.value.hint
    assert not [entry for entry in list_folder(folder) if entry.language == "tiny"]
    assert not list(folder.glob("tiny-*"))
    built_at = len(seen)
    built = build_and_test(write_recipe(tmp_path, test="sleep 0.5; printf OK"), settings, folder, seen.append, {})
    assert [each.words for each in seen[built_at:]] == [
        "already built: repeating only its test",
        "running the test program",
        f"{built.file.name}: 0 MiB",
    ]
    assert [entry.name for entry in list_folder(folder) if entry.language == "tiny"] == ["tiny-1.2.3"]
    assert not (folder / ".untested").exists()


def test_a_kept_package_is_keyed_by_recipe_base_and_supplied_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one")
    base = Base("debian-trixie", "13.2.20260905", tmp_path / "tree.tar", 0)
    sources = {"file": tmp_path / "file"}
    first = UntestedPackage(tmp_path, write_recipe(tmp_path), base, sources).image
    assert UntestedPackage(tmp_path, write_recipe(tmp_path, test="echo another test"), base, sources).image == first
    others = [
        UntestedPackage(tmp_path, write_recipe(tmp_path), replace(base, tree=tmp_path / "other.tar"), sources),
        UntestedPackage(tmp_path, write_recipe(tmp_path), base, {}),
    ]
    (tmp_path / "file").write_text("two")
    others.append(UntestedPackage(tmp_path, write_recipe(tmp_path), base, sources))
    (tmp_path / "file").write_text("one")
    others.append(UntestedPackage(tmp_path, write_recipe(tmp_path, script="true"), base, sources))
    assert first not in [each.image for each in others]


def _with_program(folder: Path, program: str) -> Recipe:
    """Return the recipe of lua with a different test program."""
    recipe = find_recipe("lua")
    place = folder / "lua" / recipe.series
    shutil.copytree(recipe.folder, place, dirs_exist_ok=True)
    (place / "test" / "main.lua").write_text(program)
    return msgspec.structs.replace(recipe, folder=place)
