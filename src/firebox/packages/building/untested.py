"""Built packages that have not passed their test, kept for a day so that a retry only repeats the test."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from firebox.files.checksum import file_checksum
from firebox.packages.building.base import Base
from firebox.packages.building.recipe import Recipe
from firebox.packages.entry import Entry

FOLDER = ".untested"
KEPT_S = 24 * 3600.0
"""After this, Debian packages may be outdated, so the package is rebuilt."""


class UntestedPackage:
    """The slot of one build, keyed by recipe, base and supplied files; not by the test program, so that it can be fixed."""

    def __init__(self, output: Path, recipe: Recipe, base: Base, sources: Mapping[str, Path]) -> None:
        self._top = output / FOLDER
        self._folder = self._top / f"{recipe.package}-{_fingerprint(recipe, base, sources)}"
        self.image = self._folder / "image.squashfs"
        self._note = self._folder / "entry.json"

    def find(self) -> Entry | None:
        """Return the entry of the kept package; None if there is none or it has expired."""
        with suppress(OSError, msgspec.DecodeError):
            if time.time() - self._note.stat().st_mtime < KEPT_S and self.image.is_file():
                return msgspec.json.decode(self._note.read_bytes(), type=Entry)
        return None

    def keep(self, image: Path, entry: Entry) -> None:
        """Store a new package atomically, and remove expired ones."""
        for folder in self._top.glob("*"):
            if time.time() - folder.stat().st_mtime > KEPT_S:
                shutil.rmtree(folder, ignore_errors=True)
        image.chmod(0o644)
        self._top.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=self._top, prefix=".keeping-"))
        image.replace(unfinished / self.image.name)
        (unfinished / self._note.name).write_bytes(msgspec.json.encode(entry))
        shutil.rmtree(self._folder, ignore_errors=True)
        unfinished.rename(self._folder)

    def release(self, file: Path) -> None:
        """Move the package to its final path."""
        self.image.replace(file)
        shutil.rmtree(self._folder, ignore_errors=True)
        if not any(self._top.iterdir()):
            self._top.rmdir()


def _fingerprint(recipe: Recipe, base: Base, sources: Mapping[str, Path]) -> str:
    digest = hashlib.sha256(msgspec.json.encode([recipe.definitions(), base.tree.name]))
    for file in sorted(file for file in recipe.folder.rglob("*") if file.is_file()):
        if file.relative_to(recipe.folder).parts[0] != "test":
            digest.update(f"{file.relative_to(recipe.folder)}\n".encode() + file.read_bytes())
    for name, file in sorted(sources.items()):
        digest.update(f"{name} {file_checksum(file)}\n".encode())
    return digest.hexdigest()[:16]
