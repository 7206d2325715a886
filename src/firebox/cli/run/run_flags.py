"""What `firebox run` understands: one table of its flags, from which typer's options are made and a quick reader reads.

Typer takes longer to load than a small program takes to run. So a command line without a mistake is read here, and only one
with a mistake, or with `--help`, goes to typer, which explains. Structs, as dataclasses take their time as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["word", "words", "switch"]


class Flag(Struct, frozen=True):
    """One flag. kind: takes a value, may be repeated with a value each, or takes none."""

    name: str
    spellings: tuple[str, ...]
    kind: Kind
    help: str
    metavar: str | None = None


# fmt: off
FLAGS = (
    Flag("language", ("--language", "-l"), "word", "Language; otherwise the file's ending decides.", "NAME"),
    Flag("version", ("--version",), "word", "SemVer range; the newest match runs.", "RANGE"),
    Flag("time", ("--time", "-t"), "word", "Wall clock of the program, like 5s or 500ms.", "TIME"),
    Flag("cpu", ("--cpu",), "word", "Processor time of the program, like 5s.", "TIME"),
    Flag("memory", ("--memory", "-m"), "word", "Memory of the program, like 256m or 1g.", "SIZE"),
    Flag("stack", ("--stack",), "word", "Stack of the program, like 64m; otherwise as large as its memory.", "SIZE"),
    Flag("processes", ("--processes",), "word", "Processes and threads at once.", "NUMBER"),
    Flag("limit", ("--limit",), "words", "Any limit; compile.NAME for the compile stage.", "NAME=VALUE"),
    Flag("env", ("--env", "-e"), "words", "A variable for the program.", "NAME=VALUE"),
    Flag("file", ("--file", "-f"), "words", "A further file beside the program.", "FILE"),
    Flag("compile_arg", ("--compile-arg",), "words", "An argument of the compiler, like --compile-arg=-O3.", "ARGUMENT"),
    Flag("command", ("--command", "-c"), "word", "Run this by `sh -c` instead of compiling and running.", "COMMAND"),
    Flag("artifact", ("--artifact",), "words", "Files to fetch after the run.", "GLOB"),
    Flag("cache", ("--cache",), "word", "What may be kept for the next run; usually binary.", "none|binary|output"),
    Flag("fresh", ("--fresh",), "switch", "Start the program for this run: not one that waits, nor one out of a template."),
    Flag("output", ("--output", "-o"), "word", "Where fetched files go.", "FOLDER"),
    Flag("tty", ("--tty",), "switch", "A terminal for the program instead of pipes."),
    Flag("as_json", ("--json",), "switch", "Print the result as JSON instead of the program's output."),
    Flag("verbose", ("--verbose", "-v"), "switch", "Print verdict, times and memory to stderr."),
    Flag("config", ("--config",), "word", "TOML file with settings, or Runner's YAML; also FIREBOX_CONFIG.", "FILE"),
    Flag("data_dir", ("--data-dir",), "word", "Folder for everything that is kept; also FIREBOX_DATA_DIR.", "PATH"),
)
# fmt: on

_BY_SPELLING = {spelling: flag for flag in FLAGS for spelling in flag.spellings}


class RunRequest(Struct, frozen=True):
    """A command line of `firebox run`, as it was typed. program: the main file, a folder, or "-"."""

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
    """Read the words after `firebox run`; None when there is anything that has to be explained."""
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
