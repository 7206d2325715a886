"""The command line of `firebox run`: both parsers agree."""

from __future__ import annotations

import pytest
from msgspec.structs import astuple
from typer.testing import CliRunner

from firebox.cli.run import run_program
from firebox.cli.run.run_command import app
from firebox.cli.run.run_flags import FLAGS, RunRequest, read_quickly

LINES = [
    "a.py",
    "-",
    "-- a.py -x",
    "a.py -h --json -- b",
    "--time 5s --cpu=2s -m256m -t 3s a.py",
    "-e A=1 -e B=2=3 --env=C= --file b.py -f c.py --artifact *.txt --limit wall=5s a.py x y",
    "-l python --version ^3 --cache none -o out --tty --json -v --config c.toml --data-dir d -",
    "--processes 5 --command ls --output=. folder",
    "--fresh a.py --fresh",
]


def values(request: RunRequest) -> list[object]:
    """Return the values of a request, with lists as tuples."""
    return [tuple(value) if isinstance(value, list) else value for value in astuple(request)]


def read_by_typer(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> RunRequest:
    """Return what typer parses from the words."""
    seen: list[RunRequest] = []

    def remember(request: RunRequest) -> int:
        seen.append(request)
        return 0

    monkeypatch.setattr(run_program, "run_program", remember)
    CliRunner().invoke(app, words)
    return seen[0]


@pytest.mark.parametrize("line", LINES)
def test_the_fast_parser_agrees_with_typer(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    quick = read_quickly(line.split())
    assert quick is not None
    assert values(quick) == values(read_by_typer(monkeypatch, line.split()))


@pytest.mark.parametrize(
    "line",
    ["", "--help", "-h", "--tme 5s a.py", "--time", "--time --json a.py", "--json=1 a.py", "--fresh=1 a.py", "-vt 5s a.py", "-l"],
)
def test_what_has_to_be_explained_is_left_to_typer(line: str) -> None:
    assert read_quickly(line.split()) is None


def test_every_flag_has_its_field() -> None:
    assert set(FLAGS) == set(RunRequest.__struct_fields__) - {"program", "args"}
