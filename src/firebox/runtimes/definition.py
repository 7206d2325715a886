"""Runtime definitions: TOML files, ours and the operator's, fully validated. docs/develop/add-a-language.md explains the keys."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from firebox.domain.errors import SettingsError
from firebox.domain.limits import STAGES, LimitRequest, StageName
from firebox.domain.model import CacheLevel
from firebox.runtimes.prestart import COMPILER_HOOKS, HOOKS
from firebox.runtimes.runtime import LIST_PLACEHOLDERS, STEP_PLACEHOLDER, WORD_PLACEHOLDERS, CompilerAhead, Toolchain
from firebox.settings.settings_table import ROWS, nearest

DEFAULT_PATTERN = r"\d+(?:\.\d+)+\S*"

_LOWER_NAME = r"^[a-z0-9][a-z0-9_.+#-]*$"
_COMMAND = r"^[A-Za-z0-9][\w.+-]{0,63}$"
_FOUND_PLACEHOLDERS = ("prefix", "folder", "prepared")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`")
_PLACEHOLDER = re.compile(r"(?<![$%])\{(\w+)\}")


class Tool(Struct, kw_only=True, forbid_unknown_fields=True):
    """A program to look up on PATH."""

    programs: list[str]
    """Names in order of preference; `*`, `?` and `[...]` match as in a shell."""
    locate: list[str] = field(default_factory=list[str])
    """Arguments that make the program print its real path, for programs that may be shims."""
    executable: str = "{located}"
    """The real program, derived from the first line that `locate` prints."""


class Detect(Tool, kw_only=True, forbid_unknown_fields=True):
    """The main program of a runtime, and how to find its version."""

    version: list[str] = field(default_factory=lambda: ["--version"])
    """Arguments that make the program print its version."""
    command: list[str] = field(default_factory=list[str])
    """A whole command line instead, for programs that cannot print their version."""
    stdin: str = ""
    pattern: str = DEFAULT_PATTERN
    """Regular expression that finds the version in the output; group 1 if it has one."""
    file: str = ""
    """A file to read instead, if it exists: faster than starting a JVM."""


class Packages(Struct, kw_only=True, forbid_unknown_fields=True):
    """Packages that install the tools of a language; every one in a list is needed."""

    debian: list[str] = field(default_factory=list[str])
    suite: str = ""
    """The Debian release, if the default one lacks them."""
    pypi: list[str] = field(default_factory=list[str])
    npm: list[str] = field(default_factory=list[str])
    note: str = ""
    """A remark on further requirements, or where to look when there is no package."""

    def words(self) -> str:
        """Return installation instructions, or "" if unknown."""
        release = f" (Debian {self.suite})" if self.suite else ""
        ways = [f"apt-get install {' '.join(self.debian)}{release}"] if self.debian else []
        ways += [f"pip install {' '.join(self.pypi)}"] if self.pypi else []
        ways += [f"npm install --global {' '.join(self.npm)}"] if self.npm else []
        return "; ".join(filter(None, [" and ".join(ways), self.note]))


class Definition(Toolchain, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One TOML file. Keys are those of `Toolchain` unless described here."""

    cache: CacheLevel | None = None
    """None: "binary" for compiled languages, otherwise "none"."""
    compile_limits: dict[str, int | str] = field(default_factory=dict[str, int | str])
    run_limits: dict[str, int | str] = field(default_factory=dict[str, int | str])
    mounts: list[str] = field(default_factory=lambda: ["{prefix}"])
    prepare: list[list[str]] = field(default_factory=list[list[str]])
    """Command lines that fill `{prepared}`, a folder created once per version and mounted read-only."""
    prepare_files: dict[str, str] = field(default_factory=dict[str, str])
    """Files put beside them first, by name."""
    prepare_follows: list[str] = field(default_factory=list[str])
    """Files of the host. When the tool or one of these changes, everything is prepared again."""
    prepare_first: bool = False
    """True: without preparation a single program takes as long as preparing, so `firebox run` prepares first."""
    detect: Detect
    tools: dict[str, Tool | list[str]] = field(default_factory=dict[str, Tool | list[str]])
    """Further programs that are required; each name is a placeholder."""
    packages: Packages = field(default_factory=Packages)

    def limits(self, stage: StageName) -> LimitRequest:
        """Return the limits of a stage that the file sets. Their values were checked when it was read."""
        wanted = self.compile_limits if stage == "compile" else self.run_limits
        return msgspec.convert({name: ROWS[f"{stage}_{name}"].read(value) for name, value in wanted.items()}, LimitRequest)

    def tool(self, name: str) -> Tool:
        tool = self.tools[name]
        return Tool(programs=tool) if isinstance(tool, list) else tool


_TABLES: Mapping[str, type[Struct]] = {
    "": Definition,
    "detect": Detect,
    "tools": Tool,
    "packages": Packages,
    "compile_ahead": CompilerAhead,
}
"""The tables of a definition, by path."""


def read_definition(text: str, source: str) -> Definition:
    """Parse one definition. source: the file's name. Raises: SettingsError with the file, key, value and what is allowed."""
    definition = _parse(text, source)
    _check(definition, source)
    return definition


def _parse(text: str, source: str) -> Definition:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refused(source, "", text[:40], f"TOML ({error})") from None
    try:
        return msgspec.convert(table, Definition)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        key = where.rstrip("`").removeprefix("$").lstrip(".")
        if unknown := _UNKNOWN_KEY.fullmatch(message):
            name, known = unknown[1], _TABLES[key.partition("[")[0]].__struct_fields__
            raise _unknown(source, key, name, _value_at(table, f"{key}.{name}"), known) from None
        raise _refused(source, key, _value_at(table, key), message) from None


def shipped_definitions(mentioning: str = "") -> list[Definition]:
    """Read the definitions that ship with Firebox. They are not checked: a test does that.

    mentioning: skip those whose text does not contain this name in quotes, since reading all of them takes a while.
    """
    folder = os.path.join(os.path.dirname(__file__), "definitions")  # noqa: PTH118, PTH120 - paths would take longer than reading
    names = sorted(name for name in os.listdir(folder) if name.endswith(".toml"))  # noqa: PTH208
    texts = ((name, _bytes_of(f"{folder}/{name}")) for name in names)
    wanted = f'"{mentioning}"'.encode(errors="surrogateescape")
    return [_parse(text.decode(), name) for name, text in texts if not mentioning or wanted in text]


def _bytes_of(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def read_definitions(folder: Path) -> list[Definition]:
    """Read the operator's definitions: every *.toml of a folder, if it exists. Raises: SettingsError, as `read_definition`."""
    definitions: list[Definition] = []
    for file in sorted(folder.glob("*.toml")):
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _refused(str(file), "", "", f"a readable file in UTF-8 ({error})") from None
        definitions.append(read_definition(text, str(file)))
    return definitions


def fill(word: str, values: Mapping[str, str]) -> str:
    """Substitute the placeholders known once a program is found; those of `Runtime` stay."""
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _refused(source: str, key: str, value: object, allowed: str) -> SettingsError:
    return SettingsError(key or "runtime definition", value=value, allowed=allowed, source=f"file {source}")


def _unknown(source: str, place: str, name: str, value: object, known: Sequence[str]) -> SettingsError:
    allowed = f"the keys {', '.join(sorted(known))}" + (f" in {place}" if place else "")
    return SettingsError(
        f"{place}.{name}".lstrip("."), value=value, allowed=allowed, source=f"file {source}", hint=nearest(name, known)
    )


def _value_at(table: Any, key: str) -> object:
    """Follow a path such as `detect.programs[0]` through the TOML as far as possible."""
    found: Any = table
    for part in re.findall(r"[^.\[\]]+", key):
        try:
            found = found[int(part) if part.isdigit() else part]
        except (KeyError, IndexError, TypeError):
            break
    return found


def check_definition_limits(definition: Definition, source: str) -> None:
    """Check the limits of a definition. Raises: SettingsError."""
    for stage in STAGES:
        wanted = definition.compile_limits if stage == "compile" else definition.run_limits
        for name, value in wanted.items():
            row = ROWS.get(f"{stage}_{name}")
            if row is None:
                raise _unknown(source, f"{stage}_limits", name, value, LimitRequest.__struct_fields__)
            try:
                row.read(value)
            except ValueError:
                raise _refused(source, f"{stage}_limits.{name}", value, row.allowed) from None


def _check(definition: Definition, source: str) -> None:
    """Check everything that types cannot express."""
    for key, value, good, allowed in _rules(definition):
        if not good:
            raise _refused(source, key, value, allowed)
    check_definition_limits(definition, source)
    tools = {"tool", *definition.tools}
    single = {*WORD_PLACEHOLDERS, *_FOUND_PLACEHOLDERS, *tools}
    words: list[tuple[str, Sequence[str]]] = [("run", definition.run)]
    words += [(f"compile[{number}]", step) for number, step in enumerate(definition.compile)]
    words += [("run_with_others", definition.run_with_others)] if definition.run_with_others else []
    for key, step in words:
        if not step:
            raise _refused(source, key, list(step), "at least one word")
        known = {*single, STEP_PLACEHOLDER} if key.startswith("compile[") else single
        for word in step:
            _check_word(source, key, word, known, lists=True)
    words = [("env", list(definition.env.values())), ("compile_env", list(definition.compile_env.values()))]
    words += [("mounts", definition.mounts), ("detect.command", definition.detect.command)]
    words += [("detect.file", [definition.detect.file])]
    words += [(f"commands.{name}", [program]) for name, program in definition.commands.items()]
    words += [(f"prepare[{number}]", step) for number, step in enumerate(definition.prepare)]
    known = {*_FOUND_PLACEHOLDERS, *tools}
    for key, step in words:
        for word in step:
            _check_word(source, key, word, known, lists=False)
    for word in definition.compile_ahead.command if definition.compile_ahead is not None else ():
        _check_word(source, "compile_ahead.command", word, {*known, "memory_mb"}, lists=False)


def _rules(definition: Definition) -> Iterator[tuple[str, object, bool, str]]:
    """Yield key, value, whether it is valid, and what is allowed."""
    for name in (definition.language, *definition.aliases):
        key = "language" if name == definition.language else "aliases"
        yield key, name, re.match(_LOWER_NAME, name) is not None, "lower-case letters, digits and _ . + # -"
    yield "extensions", list(definition.extensions), bool(definition.extensions), "at least one"
    for extension in definition.extensions:
        yield "extensions", extension, re.match(r"^\.[\w+.-]+$", extension) is not None, "endings with their dot, as .py"
    yield "main_name", definition.main_name, re.match(r"^[\w.-]+$", definition.main_name) is not None, "a plain file name"
    yield "ahead", definition.ahead, definition.ahead in ("", *HOOKS), "one of " + ", ".join(HOOKS)
    last = next((word for word in reversed(definition.run) if not word.startswith("-")), "")
    good = not definition.ahead or "{main}" in last or "{base}" in last
    yield "run", list(definition.run), good, "with `ahead`: options, and the main file as the last that is none"
    if definition.compile_ahead is not None:
        hook, command = definition.compile_ahead.hook, definition.compile_ahead.command
        yield "compile_ahead.hook", hook, hook in COMPILER_HOOKS, "one of " + ", ".join(COMPILER_HOOKS)
        yield "compile_ahead.command", command, bool(command), "at least one word"
    patterns = {"detect.pattern": definition.detect.pattern, "name_pattern": definition.name_pattern}
    for key, pattern in patterns.items():
        yield key, pattern, _is_pattern(pattern), "a regular expression"
    for pattern in definition.compile_args:
        yield "compile_args", pattern, _is_pattern(pattern), "a regular expression"
    good = any("{compile_args}" in step for step in definition.compile) or not definition.compile_args
    yield "compile_args", list(definition.compile_args), good, "with the word {compile_args} in a step of `compile`"
    good = not definition.name_pattern or re.compile(definition.name_pattern).groups >= 1
    yield "name_pattern", definition.name_pattern, good, "a regular expression with a group"
    tools: dict[str, Sequence[str]] = {"detect": definition.detect.programs}
    tools |= {f"tools.{name}": definition.tool(name).programs for name in definition.tools}
    for key, programs in tools.items():
        good = bool(programs) and all(program and "/" not in program for program in programs)
        yield key + ".programs", list(programs), good, "names of programs, without folders"
    for name, program in definition.commands.items():
        yield "commands", name, re.match(_COMMAND, name) is not None, "names of programs, without folders"
        yield f"commands.{name}", program, program.startswith(("{", "/")), "a placeholder, {folder}/NAME, or an absolute path"
    for name in definition.tools:
        good = re.match(r"^[a-z]\w*$", name) is not None
        good = good and name not in {"tool", STEP_PLACEHOLDER, *WORD_PLACEHOLDERS, *_FOUND_PLACEHOLDERS}
        yield f"tools.{name}", name, good, "a name that is no other placeholder's"


def _is_pattern(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _check_word(source: str, key: str, word: str, single: set[str], *, lists: bool) -> None:
    for name in _PLACEHOLDER.findall(word):
        if name in LIST_PLACEHOLDERS:
            if not lists or word != "{" + name + "}":
                raise _refused(source, key, word, f"{{{name}}} only as a word of its own, in compile and run")
        elif name not in single:
            raise _refused(source, key, word, "placeholders: " + " ".join(sorted("{" + known + "}" for known in single)))
