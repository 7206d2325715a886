"""The flags of `firebox run`, declared once, for typer's options and for a fast parser.

Typer takes longer to load than a small program to run. So a valid command line is parsed here; only an invalid one, or `--help`,
goes to typer for its messages. Structs rather than dataclasses, for the same reason.
"""

# Without `from __future__ import annotations`: evaluating the annotations later, from strings, would take longer.

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Struct


class Flag(Struct, frozen=True):
    """One flag. Its field in `RunRequest` has its name; the type says whether it takes a value, is repeatable or takes none."""

    spellings: tuple[str, ...]
    help: str
    metavar: str | None = None


class RunRequest(Struct, frozen=True):
    """A parsed command line of `firebox run`. program: the main file, a folder, or "-"."""

    program: str
    args: tuple[str, ...] = ()
    # fmt: off
    language: Annotated[str | None, Flag(("--language", "-l"),
        "Language; by default determined by the file extension.", "NAME")] = None
    version: Annotated[str | None, Flag(("--version",), "SemVer range; the latest match is used.", "RANGE")] = None
    time: Annotated[str | None, Flag(("--time", "-t"), "Wall time limit of the program, such as 5s or 500ms.", "TIME")] = None
    cpu: Annotated[str | None, Flag(("--cpu",), "CPU time limit of the program, such as 5s.", "TIME")] = None
    memory: Annotated[str | None, Flag(("--memory", "-m"), "Memory limit of the program, such as 256m or 1g.", "SIZE")] = None
    stack: Annotated[str | None, Flag(("--stack",),
        "Stack limit of the program, such as 64m; default: its memory limit.", "SIZE")] = None
    processes: Annotated[str | None, Flag(("--processes",), "Limit on processes and threads.", "NUMBER")] = None
    limit: Annotated[Sequence[str], Flag(("--limit",), "Any other limit; compile.NAME for the compile stage.", "NAME=VALUE")] = ()
    env: Annotated[Sequence[str], Flag(("--env", "-e"), "Environment variable of the program.", "NAME=VALUE")] = ()
    file: Annotated[Sequence[str], Flag(("--file", "-f"), "Additional file.", "FILE")] = ()
    compile_arg: Annotated[Sequence[str], Flag(("--compile-arg",),
        "Argument of the compiler, such as --compile-arg=-O3.", "ARGUMENT")] = ()
    command: Annotated[str | None, Flag(("--command", "-c"),
        "Run this with `sh -c` instead of compiling and running.", "COMMAND")] = None
    artifact: Annotated[Sequence[str], Flag(("--artifact",), "Files to fetch after the run.", "GLOB")] = ()
    cache: Annotated[str | None, Flag(("--cache",),
        "What may be cached for the next run; default: binary.", "none|binary|output")] = None
    fresh: Annotated[bool, Flag(("--fresh",),
        "Start a new process: neither a prestarted one nor one restored from a template.")] = False
    output: Annotated[str | None, Flag(("--output", "-o"), "Folder for fetched files.", "FOLDER")] = None
    tty: Annotated[bool, Flag(("--tty",), "Run the program in a terminal instead of with pipes.")] = False
    as_json: Annotated[bool, Flag(("--json",), "Print the result as JSON instead of the program's output.")] = False
    verbose: Annotated[bool, Flag(("--verbose", "-v"), "Print verdict, times and memory to stderr.")] = False
    config: Annotated[str | None, Flag(("--config",),
        "TOML file with settings, or Runner's YAML; also FIREBOX_CONFIG.", "FILE")] = None
    data_dir: Annotated[str | None, Flag(("--data-dir",), "Data folder; also FIREBOX_DATA_DIR.", "PATH")] = None
    # fmt: on


FLAGS: dict[str, tuple[Flag, Any]] = {
    name: (hint.__metadata__[0], hint.__origin__)
    for name, hint in RunRequest.__annotations__.items()
    if name not in ("program", "args")
}
"""Every flag and its type, by field."""
_BY_SPELLING = {spelling: (name, type_) for name, (flag, type_) in FLAGS.items() for spelling in flag.spellings}


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
        name, type_ = _BY_SPELLING.get(spelling, ("", None))
        if not name or (type_ is bool and equals):
            return None
        if type_ is bool:
            values[name] = True
            continue
        if not equals:
            if position == len(words) or words[position].startswith("-"):
                return None
            value = words[position]
            position += 1
        if type_ == Sequence[str]:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    if position == len(words):
        return None
    return RunRequest(words[position], tuple(words[position + 1 :]), **values)
