"""Recipes built, installed and run: the programs of tests/languages/programs, and a place where packages are built and kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import tomllib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from firebox.cli.package_commands.building import make
from firebox.config import load_settings
from firebox.packages.building.recipe import Recipe, all_recipes
from firebox.packages.entry import Entry, no_report
from firebox.packages.install import Installer
from firebox.packages.publishing import write_index
from firebox.packages.repositories import Repositories
from firebox.packages.store import Installed, PackageStore
from firebox.runtimes.definition import Definition
from firebox.runtimes.runtime import Runtime
from tests.conftest import ROOT

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


@cache
def recipes() -> tuple[Recipe, ...]:
    """Read the recipes that come with Firebox, once."""
    return tuple(all_recipes())


def is_everything_asked_for() -> bool:
    """Tell whether this is `make test-languages`."""
    return bool(os.environ.get("FIREBOX_LANGUAGES"))


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


class Workshop:
    """A folder where packages are built, each once, and a repository of them.

    Any number of processes may share it; they take turns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.repository.mkdir(parents=True, exist_ok=True)
        self.notes = folder / "built"
        self.notes.mkdir(exist_ok=True)
        with self.alone():
            self._remove_outdated()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep others out of the folder."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def package(self, recipe: Recipe) -> Entry:
        """Get a package: built and tried as `firebox packages build` does, unless it was made of this very recipe before.

        Raises: PackageError.
        """
        note = self.notes / f"{recipe.package}-{recipe.series}.json"
        digest = _digest(recipe)
        with self.alone():
            kept = _kept(note, digest)
            if kept is not None:
                return kept
            # What was downloaded lies there: the cache makes the next package quick, and what a package is made of is pinned.
            settings = load_settings({"data_dir": str(self.folder / "data")})
            entry = make(recipe, settings, self.repository, no_report, _sources(recipe)).entry
            note.write_bytes(msgspec.json.encode({"digest": digest, "entry": entry}))
            return entry

    def _remove_outdated(self) -> None:
        """Remove what was built from recipes as they were: nobody may see one version with two contents."""
        current = {f"{recipe.package}-{recipe.series}.json": recipe for recipe in recipes()}
        outdated = [
            note for note in self.notes.iterdir() if note.name not in current or _kept(note, _digest(current[note.name])) is None
        ]
        for note in outdated:
            with contextlib.suppress(ValueError):
                _file(msgspec.convert(msgspec.json.decode(note.read_bytes())["entry"], Entry)).unlink(missing_ok=True)
            note.unlink()
        if outdated:
            write_index(self.repository)


def _kept(note: Path, digest: str) -> Entry | None:
    """Give what a note tells of, if it is there and was built from the recipe of this digest."""
    with contextlib.suppress(OSError, ValueError):
        written = msgspec.json.decode(note.read_bytes())
        entry = msgspec.convert(written["entry"], Entry)
        if written["digest"] == digest and _file(entry).is_file():
            return entry
    return None


def _file(entry: Entry) -> Path:
    return Path(unquote(urlsplit(entry.download).path))


def _digest(recipe: Recipe) -> str:
    """Change whenever something changes that a package of this recipe is made of."""
    digest = hashlib.sha256(msgspec.json.encode(recipe.definitions()))
    for file in sorted(file for file in recipe.folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(recipe.folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def missing_sources(recipe: Recipe) -> list[str]:
    """List what this machine's operator has not supplied, in words."""
    return [f"{source.name}: {source.hint}" for source in recipe.supplied if source.name not in _sources(recipe)]


def _sources(recipe: Recipe) -> dict[str, Path]:
    """Find what the operator supplies in the folder FIREBOX_LANGUAGES_SOURCES."""
    folder = os.environ.get("FIREBOX_LANGUAGES_SOURCES")
    if not folder:
        return {}
    return {source.name: file for source in recipe.supplied if (file := Path(folder, source.name)).is_file()}


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


@contextmanager
def workshop_folder(own: Path) -> Generator[Path]:
    """Give the folder to build in: one kept between runs for `make test-languages`, else a new one that is removed after use.

    own: a folder that all processes of this test run share.
    """
    if is_everything_asked_for():
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        yield Path(os.environ.get("FIREBOX_PACKAGES_CACHE") or Path(cache, "firebox-packages"))
        return
    users = own / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    mine.touch()
    try:
        yield own
    finally:
        mine.unlink()
        if not any(users.iterdir()):
            shutil.rmtree(own, ignore_errors=True)


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
