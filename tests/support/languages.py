"""Recipes built, installed and run: the programs of tests/languages/programs, and a machine to run them on."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from firebox.packages.building.recipe import Recipe
from firebox.packages.entry import Entry
from firebox.packages.installed.install import Installer
from firebox.packages.installed.store import Installed, PackageStore
from firebox.packages.repository.repositories import Repositories
from firebox.runtimes.definition import Definition
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import load_settings
from tests.conftest import ROOT
from tests.support.package_workshop import Workshop, is_everything_asked_for, recipes

PROGRAMS = ROOT / "tests" / "languages" / "programs"
MEASURED = ROOT / "tests" / "languages" / "measured.json"
BOUNDED = ("bash", "python", "c", "javascript", "lua", "java")
"""What every test run builds from nothing; the others are built by `make test-languages`."""

EXPECTED = {
    "hello": "Hello, 🌍!\n",
    "stdin": "two\none\n",
    "args": "a b\nü\n",
    "two_files": "from the other file\n",
    "exit": "",
    "compile_error": "",
    "stderr": "",
    "loop": "",
}
"""What a program of each kind prints on stdout."""
INPUT = "one\ntwo\n"
ARGUMENTS = ["a b", "ü"]
STDERR = "to stderr\n"
STATUS = 3


class Program(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program of one kind in one language, or the reason why there is none."""

    files: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Names and contents, the main file first."""
    stdout: str | None = None
    """What it prints where that cannot be what all others print; `why` says why."""
    why: str = ""
    without: str = ""


class Programs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All programs of a language. selector: what a client asks for."""

    selector: str
    commands: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Lines to type for names that do not tell their version, by name."""
    hello: Program
    stdin: Program
    args: Program
    two_files: Program
    exit: Program
    compile_error: Program
    stderr: Program
    loop: Program

    def of(self, kind: str) -> Program:
        program: Program = getattr(self, kind)
        return program


def read_programs(stem: str) -> Programs:
    """Read the programs for a definition. Raises: OSError, tomllib.TOMLDecodeError, msgspec.ValidationError."""
    return msgspec.convert(tomllib.loads((PROGRAMS / f"{stem}.toml").read_text(encoding="utf-8")), Programs)


def chosen_recipes() -> list[Recipe]:
    """List the recipes to be tested: what FIREBOX_LANGUAGES names ("all", or packages or languages), else the bounded part.

    A name may be a package (python-science), a definition (c++), or a package and its series (python/3.13).
    """
    wanted = {name.strip() for name in os.environ.get("FIREBOX_LANGUAGES", "").split(",") if name.strip()}
    if not wanted:
        newest = {stem: recipe for recipe in recipes() if recipe.rank is None for stem in recipe.provides}
        return [newest[stem] for stem in BOUNDED]
    chosen = [recipe for recipe in recipes() if "all" in wanted or wanted & {recipe.package, recipe.name, *recipe.provides}]
    known = {"all"} | {name for recipe in recipes() for name in (recipe.package, recipe.name, *recipe.provides)}
    assert wanted <= known, f"FIREBOX_LANGUAGES names no recipe: {', '.join(sorted(wanted - known))}"
    return chosen


@dataclass(frozen=True)
class Case:
    """One language of one package."""

    recipe: Recipe
    stem: str

    @property
    def id(self) -> str:
        """Readable and unique: haskell, python-science, python-3.11."""
        recipe = self.recipe
        name = self.stem
        if recipe.rank is not None:
            name = recipe.package if len(recipe.provides) == 1 else f"{recipe.package}-{self.stem}"
        return name if recipe.series == _newest_series(recipe.package) else f"{name}-{recipe.series}"

    @property
    def definition(self) -> Definition:
        return dict(zip(self.recipe.provides, self.recipe.definitions(), strict=True))[self.stem]

    def selector(self, programs: Programs) -> str:
        """What to ask for: of a variant by its own name."""
        return self.recipe.aliases[0] if self.recipe.aliases else programs.selector


def typed_lines(case: Case, programs: Programs) -> list[str]:
    """Give a line for each name that people type for a language: it succeeds where that is the program it should be."""
    detect, commands = case.definition.detect, {case.definition.detect.programs[0]: "{tool}", **case.definition.commands}
    assert programs.commands.keys() <= commands.keys(), f"lines for what is no command of {case.stem}"
    asking = {name: detect.version if program == "{tool}" else ["--version"] for name, program in commands.items()}
    return [programs.commands.get(name, shlex.join([name, *asking[name]])) for name in commands]


def _newest_series(package: str) -> str:
    return [recipe.series for recipe in recipes() if recipe.package == package][-1]


def chosen_cases() -> list[Case]:
    """List the languages of the chosen recipes; of the bounded part only the languages that it names."""
    cases = [Case(recipe, stem) for recipe in chosen_recipes() for stem in recipe.provides]
    return cases if is_everything_asked_for() else [case for case in cases if case.stem in BOUNDED]


def can_wait(case: Case) -> bool:
    """Tell whether its interpreter or compiler may be started before its job comes."""
    return bool(case.definition.ahead or case.definition.compile_ahead)


class Machine:
    """A data folder into which packages are installed by the real installer."""

    def __init__(self, data_dir: Path, workshop: Workshop) -> None:
        self.workshop = workshop
        self.settings_given = {"data_dir": str(data_dir), "repositories": f"languages={workshop.repository / 'index.yaml'}"}
        self.settings = load_settings(self.settings_given)
        self.store = PackageStore(data_dir / "packages")
        self._failures: dict[str, str] = {}

    def install(self, recipe: Recipe) -> Installed:
        """Build and install a package unless that has happened; a failure is remembered and not tried again."""
        if recipe.name in self._failures:
            raise AssertionError(self._failures[recipe.name])
        try:
            entry = self.workshop.package(recipe)
            if self.store.get(entry.name) is None:
                with self.workshop.alone():
                    asyncio.run(self._install(entry))
        except Exception as error:
            self._failures[recipe.name] = f"{recipe.name}: {type(error).__name__}: {error} {getattr(error, 'hint', '') or ''}"
            raise
        installed = self.store.get(entry.name)
        assert installed is not None
        return installed

    async def _install(self, entry: Entry) -> None:
        repositories = Repositories(self.settings)
        await repositories.sync()
        found = await repositories.find(entry.language, entry.version)
        await Installer(self.settings, self.store, repositories).install(found)

    def runtimes(self, recipe: Recipe) -> dict[str, Runtime]:
        """Give the runtimes of an installed package by the stem of their definition."""
        installed = self.install(recipe)
        runtimes, words = self.store.runtimes()
        own = [runtime for runtime in runtimes if runtime.installed == installed.id]
        by_language = {runtime.language: runtime for runtime in own}
        pairs = zip(recipe.provides, recipe.definitions(), strict=True)
        found = {stem: by_language[definition.language] for stem, definition in pairs if definition.language in by_language}
        assert set(found) == set(recipe.provides), (found, words)
        return found


def write_measurement(row: dict[str, Any]) -> None:
    """Put one language's measurement into the table, where FIREBOX_LANGUAGES_MEASURE asks for it, and keep the others."""
    if not os.environ.get("FIREBOX_LANGUAGES_MEASURE"):
        return
    with MEASURED.open("a+", encoding="utf-8") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.seek(0)
        rows: list[dict[str, Any]] = msgspec.json.decode(opened.read() or "[]")
        rows = [each for each in rows if (each["package"], each["series"], each["language"]) != _key(row)]
        rows = sorted([*rows, row], key=_key)
        opened.truncate(0)
        opened.write(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode() + "\n")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["package"], row["series"], row["language"])


def each_program(programs: Programs) -> Iterator[tuple[str, Program]]:
    yield from ((kind, programs.of(kind)) for kind in EXPECTED)
