"""A place where packages are built and kept, which all processes of a test run share: each is built once, and so is its base.

`package_workshop` is the fixture.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec
import pytest

from firebox.cli.packages.build_command import build_and_test
from firebox.packages.building.recipe import Recipe, all_recipes
from firebox.packages.entry import Entry, no_report
from firebox.packages.publishing.publishing import write_index
from firebox.packages.repository.sources import path_of_url
from firebox.settings.settings import Settings, load_settings
from tests.conftest import require_tool


@pytest.fixture(scope="session")
def package_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Where packages are built."""
    for tool in ("mmdebstrap", "mksquashfs", "unsquashfs", "sqfstar"):
        require_tool(tool)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    with _shared_folder(shared / "packages") as folder:
        yield Workshop(folder)


@cache
def recipes() -> tuple[Recipe, ...]:
    """Read the recipes that come with Firebox, once."""
    return tuple(all_recipes())


def is_everything_asked_for() -> bool:
    """Tell whether this is `make test-languages`."""
    return bool(os.environ.get("FIREBOX_LANGUAGES"))


class Workshop:
    """A folder where packages are built, each once, and a repository of them.

    Any number of processes may share it; they take turns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What was downloaded lies there: the cache makes the next package quick, and what a package is made of is pinned.
        self.settings_given = {"data_dir": str(folder / "data")}
        self.settings: Settings = load_settings(self.settings_given, environ={})
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
            entry = build_and_test(recipe, self.settings, self.repository, no_report, _sources_of(recipe)).entry
            note.write_bytes(msgspec.json.encode({"digest": digest, "entry": entry}))
            return entry

    def _remove_outdated(self) -> None:
        """Remove what was built from older recipes: one version must not have two contents."""
        current = {f"{recipe.package}-{recipe.series}.json": recipe for recipe in recipes()}
        outdated = [
            note for note in self.notes.iterdir() if note.name not in current or _kept(note, _digest(current[note.name])) is None
        ]
        for note in outdated:
            with contextlib.suppress(ValueError):
                entry = msgspec.convert(msgspec.json.decode(note.read_bytes())["entry"], Entry)
                path_of_url(entry.download).unlink(missing_ok=True)
            note.unlink()
        if outdated:
            write_index(self.repository)


def _kept(note: Path, digest: str) -> Entry | None:
    """Give what a note tells of, if it is there and was built from the recipe of this digest."""
    with contextlib.suppress(OSError, ValueError):
        written = msgspec.json.decode(note.read_bytes())
        entry = msgspec.convert(written["entry"], Entry)
        if written["digest"] == digest and path_of_url(entry.download).is_file():
            return entry
    return None


def _digest(recipe: Recipe) -> str:
    """Change whenever something changes that a package of this recipe is made of."""
    digest = hashlib.sha256(msgspec.json.encode(recipe.definitions()))
    for file in sorted(file for file in recipe.folder.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(recipe.folder)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def missing_sources(recipe: Recipe) -> list[str]:
    """List what this machine's operator has not supplied, in words."""
    return [f"{source.name}: {source.hint}" for source in recipe.supplied if source.name not in _sources_of(recipe)]


def _sources_of(recipe: Recipe) -> dict[str, Path]:
    """Find what the operator supplies in the folder FIREBOX_LANGUAGES_SOURCES."""
    folder = os.environ.get("FIREBOX_LANGUAGES_SOURCES")
    if not folder:
        return {}
    return {source.name: file for source in recipe.supplied if (file := Path(folder, source.name)).is_file()}


@contextmanager
def _shared_folder(own: Path) -> Generator[Path]:
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
