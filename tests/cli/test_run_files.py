"""The main file of a folder, and further files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from firebox.cli.failures import EXIT_USAGE, exit_status, report
from firebox.cli.run import run_files
from firebox.cli.run.run_files import Program, find_program, read_files
from firebox.domain.errors import InvalidRequest
from firebox.settings.settings import load_settings

SOURCES = {".py", ".java"}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"in " + os.fsencode(name))
    return folder


@pytest.mark.parametrize(
    ("names", "main"),
    [
        (("a.py", "main.py", "z.py"), "main.py"),
        (("Main.java", "Helper.java"), "Main.java"),
        (("program.py", "data.txt", "lib/other.py"), "program.py"),
        (("a.py", ".hidden.py"), "a.py"),
    ],
)
def test_the_main_file_is_called_main_or_the_only_source(tmp_path: Path, names: tuple[str, ...], main: str) -> None:
    program = find_program(str(make(tmp_path, *names)), SOURCES.__contains__)
    assert program.main == main
    assert sorted([main, *program.others]) == sorted(name for name in names if not name.startswith("."))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a.py", "b.py"), "a.py, b.py"),
        (("main.py", "Main.java"), "Main.java, main.py"),
        (("a.txt",), "no source"),
        ((), "no source"),
    ],
)
def test_a_folder_without_one_main_file_is_refused(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        find_program(str(make(tmp_path, *names)), SOURCES.__contains__)
    assert words in refused.value.message
    assert refused.value.hint


def test_sources_of_a_folder_are_sources_and_the_rest_is_data(tmp_path: Path) -> None:
    program = find_program(str(make(tmp_path, "main.py", "lib/a.py", "data/b.txt", ".git/config")), SOURCES.__contains__)
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    files = read_files(program, [], [".py"], "main.py")
    assert [(file.name, file.source) for file in files] == [("main.py", True), ("data/b.txt", False), ("lib/a.py", True)]
    assert files[2].content == b"in lib/a.py"


@pytest.mark.parametrize("others", [["nothing.txt"], ["."]])
def test_what_cannot_be_read_is_the_command_lines_fault(tmp_path: Path, others: list[str]) -> None:
    program = find_program(str(make(tmp_path, "main.py") / "main.py"), SOURCES.__contains__)
    with pytest.raises(InvalidRequest):
        read_files(program, [str(tmp_path / other) for other in others], [".py"], "main.py")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    program = find_program(str(make(tmp_path, "a\udcff.py", "b.txt") / "a\udcff.py"), SOURCES.__contains__)
    assert [file.name for file in read_files(program, [], [".py"], "main.py")] == ["main.py"]
    with pytest.raises(InvalidRequest, match=r"\\xff"):
        read_files(program, [str(make(tmp_path, "c\udcff.txt") / "c\udcff.txt")], [".py"], "main.py")


def test_a_file_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_files, "_MOST_BYTES", 1 << 20)
    program = find_program(str(make(tmp_path, "main.py") / "main.py"), SOURCES.__contains__)
    wrong: tuple[tuple[Program, list[str]], ...] = ((Program("zero", Path("/dev")), []), (program, ["/dev/zero"]))
    for named, others in wrong:
        with pytest.raises(InvalidRequest, match="exceed 1048576 bytes together"):
            read_files(named, others, [".py"], "main.py")


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        find_program("", SOURCES.__contains__)


def test_a_removed_current_folder_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert load_settings({"data_dir": "/data"}, None).data_dir == Path("/data")
    with pytest.raises(FileNotFoundError) as failed:
        load_settings({"data_dir": "data"}, None)
    report(failed.value)
    assert "current folder was deleted" in capsys.readouterr().err
    assert exit_status(FileNotFoundError(2, "none", "/file"), ["/file", "word"]) == EXIT_USAGE
