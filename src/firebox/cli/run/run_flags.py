"""The flags of `firebox run`: one table, used both for typer's options and by a fast parser.

Typer takes longer to load than a small program to run. So a valid command line is parsed here; only an invalid one, or `--help`,
goes to typer for its messages. Structs rather than dataclasses, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["word", "words", "switch"]


class Flag(Struct, frozen=True):
    """One flag. kind: takes a value ("word"), is repeatable with a value each ("words"), or takes none ("switch")."""

    name: str
    spellings: tuple[str, ...]
    kind: Kind
    help: str
    metavar: str | None = None


# fmt: off
FLAGS = (
    Flag("language", ("--language", "-l"), "word", "Language; by default determined by the file extension.", "NAME"),
    Flag("version", ("--version",), "word", "SemVer range; the latest match is used.", "RANGE"),
    Flag("time", ("--time", "-t"), "word", "Wall time limit of the program, such as 5s or 500ms.", "TIME"),
    Flag("cpu", ("--cpu",), "word", "CPU time limit of the program, such as 5s.", "TIME"),
    Flag("memory", ("--memory", "-m"), "word", "Memory limit of the program, such as 256m or 1g.", "SIZE"),
    Flag("stack", ("--stack",), "word", "Stack limit of the program, such as 64m; default: its memory limit.", "SIZE"),
    Flag("processes", ("--processes",), "word", "Limit on processes and threads.", "NUMBER"),
    Flag("limit", ("--limit",), "words", "Any other limit; compile.NAME for the compile stage.", "NAME=VALUE"),
    Flag("env", ("--env", "-e"), "words", "Environment variable of the program.", "NAME=VALUE"),
    Flag("file", ("--file", "-f"), "words", "Additional file.", "FILE"),
    Flag("compile_arg", ("--compile-arg",), "words", "Argument of the compiler, such as --compile-arg=-O3.", "ARGUMENT"),
    Flag("command", ("--command", "-c"), "word", "Run this with `sh -c` instead of compiling and running.", "COMMAND"),
    Flag("artifact", ("--artifact",), "words", "Files to fetch after the run.", "GLOB"),
    Flag("cache", ("--cache",), "word", "What may be cached for the next run; default: binary.", "none|binary|output"),
    Flag("fresh", ("--fresh",), "switch", "Start a new process: neither a prestarted one nor one restored from a template."),
    Flag("output", ("--output", "-o"), "word", "Folder for fetched files.", "FOLDER"),
    Flag("tty", ("--tty",), "switch", "Run the program in a terminal instead of with pipes."),
    Flag("as_json", ("--json",), "switch", "Print the result as JSON instead of the program's output."),
    Flag("verbose", ("--verbose", "-v"), "switch", "Print verdict, times and memory to stderr."),
    Flag("config", ("--config",), "word", "TOML file with settings, or Runner's YAML; also FIREBOX_CONFIG.", "FILE"),
    Flag("data_dir", ("--data-dir",), "word", "Data folder; also FIREBOX_DATA_DIR.", "PATH"),
)
# fmt: on

_BY_SPELLING = {spelling: flag for flag in FLAGS for spelling in flag.spellings}


class RunRequest(Struct, frozen=True):
    """A parsed command line of `firebox run`. program: the main file, a folder, or "-"."""

    program: str
    args: tuple[str, ...] = ()
    language: str | None = None
    version: str | None = None
    time: str | None = None
    cpu: str | None = None
    memory: str | None = None
    stack: str | None = None
    processes: str | None = None
    limit: Sequence[str] = ()
    env: Sequence[str] = ()
    file: Sequence[str] = ()
    compile_arg: Sequence[str] = ()
    command: str | None = None
    artifact: Sequence[str] = ()
    cache: str | None = None
    fresh: bool = False
    output: str | None = None
    tty: bool = False
    as_json: bool = False
    verbose: bool = False
    config: str | None = None
    data_dir: str | None = None


def read_quickly(words: Sequence[str]) -> RunRequest | None:
    """Parse the words after `firebox run`. Return None if typer has to explain something."""
    values: dict[str, Any] = {}
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] != "-":
        word = words[position]
        position += 1
        if word == "--":
            break
        spelling, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        flag = _BY_SPELLING.get(spelling)
        if flag is None:
            return None
        if flag.kind == "switch":
            if equals:
                return None
            values[flag.name] = True
            continue
        if not equals:
            if position == len(words) or words[position].startswith("-"):
                return None
            value = words[position]
            position += 1
        if flag.kind == "word":
            values[flag.name] = value
        else:
            values.setdefault(flag.name, []).append(value)
    if position == len(words):
        return None
    return RunRequest(words[position], tuple(words[position + 1 :]), **values)
