"""Preparation of toolchains: a folder that appears atomically."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from firebox.runtimes import host_folders, toolchain_cache
from firebox.runtimes.definition import read_definition, shipped_definitions
from firebox.runtimes.toolchain_cache import Preparation, Unprepared, plan_preparation
from tests.conftest import require_tool

DEFINITION = """
language = "x"
extensions = [".x"]
main_name = "main.x"
run = ["{tool}", "{prepared}"]
prepare = [["sh", "-c", 'cp seed.txt "$1/copy"; mkdir -m 700 "$1/inner"; cat "$PREPARED/copy" >&2', "sh", "{prepared}"]]
prepare_files = {"seed.txt" = "seed"}
detect = {programs = ["x"]}
"""


@pytest.fixture(autouse=True)
def show_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_folders, "COVERED", ("/covered",))


def plan(folder: Path, text: str = DEFINITION) -> Preparation:
    planned = plan_preparation(read_definition(text, "x.toml"), "1.0.0", {"tool": "/bin/x"}, path=os.defpath, data_folder=folder)
    assert isinstance(planned, Preparation)
    return planned


def test_the_folder_appears_with_everything_readable(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    assert not planned.done
    before = os.umask(0o077)
    try:
        assert planned.execute() == ""
    finally:
        os.umask(before)
    assert planned.done
    assert (planned.folder / "copy").read_text() == "seed"
    modes = [path.stat().st_mode & 0o777 for path in (planned.folder, planned.folder / "inner", planned.folder / "copy")]
    assert [mode & 0o555 for mode in modes[:2]] == [0o555, 0o555]
    assert modes[2] & 0o444 == 0o444
    assert os.listdir(planned.folder.parent) == [planned.folder.name]


def test_it_is_done_once(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    assert planned.execute() == ""
    (planned.folder / "copy").write_text("changed")
    assert planned.execute() == ""
    assert (planned.folder / "copy").read_text() == "changed"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ('["sh", "-c", "touch $PREPARED/half; echo no luck >&2; exit 3"]', "sh exits with 3: no luck"),
        ('["no-such-program-anywhere"]', "no-such-program-anywhere"),
    ],
)
def test_a_failure_is_reported_and_leaves_nothing_behind(tmp_path: Path, command: str, words: str) -> None:
    lines = [f"prepare = [{command}]" if line.startswith("prepare =") else line for line in DEFINITION.splitlines()]
    planned = plan(tmp_path, "\n".join(lines))
    problem = planned.execute()
    assert problem.startswith("preparing x 1.0.0: ")
    assert words in problem
    assert os.listdir(planned.folder.parent) == []


def test_what_a_killed_server_left_is_swept_away(tmp_path: Path) -> None:
    planned = plan(tmp_path)
    old, young = (planned.folder.parent / f".{planned.folder.name}.{name}" for name in ("old", "young"))
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    assert planned.execute() == ""
    assert not old.exists()
    assert young.exists(), "another server may be at work on it"


def test_another_recipe_gets_another_folder(tmp_path: Path) -> None:
    assert plan(tmp_path).folder != plan(tmp_path, DEFINITION.replace("seed", "sown")).folder


@pytest.mark.parametrize("name", ["tool", "followed"])
def test_another_build_of_the_toolchain_gets_another_folder(tmp_path: Path, name: str) -> None:
    for file in ("tool", "followed"):
        (tmp_path / file).write_text("1")
    definition = read_definition(f'prepare_follows = ["{tmp_path}/followed"]\n{DEFINITION}', "x.toml")

    def folder() -> Path:
        planned = plan_preparation(definition, "1.0.0", {"tool": str(tmp_path / "tool")}, path=os.defpath, data_folder=tmp_path)
        assert isinstance(planned, Preparation)
        return planned.folder

    before = folder()
    assert folder() == before
    (tmp_path / name).write_text("22")
    assert folder() != before


def test_what_could_not_be_shown_is_not_planned_and_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "prepared" / "home")
    definition = read_definition(DEFINITION, "x.toml")
    planned = plan_preparation(definition, "1.0.0", {"tool": "/bin/x"}, path=os.defpath, data_folder=tmp_path)
    assert isinstance(planned, Unprepared)
    assert "would show too much; set data_dir to another folder" in planned.reason


def test_a_data_folder_below_tmp_is_shown_where_the_sandbox_has_no_folder_of_its_own() -> None:
    definition = read_definition(DEFINITION, "x.toml")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        planned = plan_preparation(definition, "1.0.0", {"tool": "/bin/x"}, path=os.defpath, data_folder=Path(folder))
        assert isinstance(planned, Preparation)
        assert planned.folder.is_relative_to(folder)
        assert planned.shown_at == f"/.host{planned.folder}"


def test_a_slow_command_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_cache, "PREPARATION_TIMEOUT_S", 0.2)
    lines = ['prepare = [["sleep", "600"]]' if line.startswith("prepare =") else line for line in DEFINITION.splitlines()]
    assert "sleep takes more than 0.2 s" in plan(tmp_path, "\n".join(lines)).execute()


def test_every_go_of_this_host_has_the_packages_that_are_prepared(tmp_path: Path) -> None:
    """Debian 12 has Go 1.19, which lacks some."""
    require_tool("go")
    (definition,) = shipped_definitions("go")
    for name, text in definition.prepare_files.items():
        (tmp_path / name).write_text(text)
    for program in [shutil.which("go") or "", *map(str, Path("/usr/lib").glob("go-*/bin/go"))]:
        listed = subprocess.run(
            [program, "list", "-deps", "."],
            cwd=tmp_path,
            env={"GO111MODULE": "auto", "GOTOOLCHAIN": "local", "GOPATH": f"{tmp_path}/path", "GOCACHE": f"{tmp_path}/cache"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "unicode/utf8" in listed.stdout.split()


PREPARES = """
import sys
from pathlib import Path
from firebox.runtimes.toolchain_cache import Preparation
words = "exec 9> $0; sleep 60 & wait"
Preparation("x", "1", Path(sys.argv[1], "x"), (("sh", "-c", words, sys.argv[2]),), {}, "/usr/bin:/bin").execute()
"""


def test_commands_end_when_the_server_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    server = subprocess.Popen([sys.executable, "-c", PREPARES, str(tmp_path), str(tmp_path / "alive")])
    with open(tmp_path / "alive", "rb") as alive:  # opens once the command holds the other side
        server.kill()
        server.wait()
        assert alive.read() == b"", "end of file needs all copies of the other end closed"
