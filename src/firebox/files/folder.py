"""The folder with the files of a run, accessed without following symlinks out of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from firebox.domain.errors import InvalidRequest
from firebox.domain.model import File

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_files(folder: Path, files: Iterable[File], *, mode: int = 0o644) -> None:
    """Write files below an existing folder, replacing existing ones.

    The caller has validated the names: relative, no `..`.
    Raises: OSError naming the file; ELOOP or ENOTDIR if a symlink is in the way.
    """
    root = os.open(folder, _FOLDER)
    try:
        for file in files:
            with _named(file.name):
                *above, name = file.name.split("/")
                with _below(root, above) as place:
                    _write(place, name, file.content, mode)
    finally:
        os.close(root)


def make_folder(folder: Path, name: str) -> None:
    """Create a folder and its parents below an existing folder. Raises: as `write_files`."""
    root = os.open(folder, _FOLDER)
    try:
        with _named(name), _below(root, name.split("/")):
            pass
    finally:
        os.close(root)


def read_files(folder: Path, skip: Iterable[str], *, max_bytes: int, max_files: int) -> list[File]:
    """Read all regular files below a folder, without following symlinks; other file types are skipped.

    skip: names to skip. Raises: InvalidRequest if there are more than `max_bytes` or `max_files`; OSError.
    """
    unwanted = set(skip)
    found: list[File] = []
    total_bytes = 0
    for name, size_bytes, place, base in _regular_files(folder):
        if name in unwanted:
            continue
        total_bytes += size_bytes
        if total_bytes > max_bytes or len(found) >= max_files:
            raise InvalidRequest(f"{folder} contains more than {max_bytes} bytes or {max_files} files")
        found.append(File(name, _read(place, base, max_bytes), source=False))
    return found


def _regular_files(folder: Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield name and size, and the parent folder's file descriptor and base name to open it."""
    for place, _folders, names, descriptor in os.fwalk(folder):
        prefix = os.path.relpath(place, folder)
        for name in sorted(names):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield name if prefix == "." else f"{prefix}/{name}", status.st_size, descriptor, name


@contextmanager
def _below(root: int, folders: list[str]) -> Generator[int]:
    """Open a folder below `root`, creating missing ones. Yield its file descriptor."""
    place = os.dup(root)
    try:
        for name in folders:
            with contextlib.suppress(FileExistsError):  # opening it fails if it is a file or symlink
                os.mkdir(name, dir_fd=place)
            following = os.open(name, _FOLDER, dir_fd=place)
            os.close(place)
            place = following
        yield place
    finally:
        os.close(place)


def _write(place: int, name: str, content: bytes, mode: int) -> None:
    descriptor = os.open(name, _NEW_FILE, mode, dir_fd=place)
    with os.fdopen(descriptor, "wb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EEXIST, "not a regular file")
        opened.write(content)


def _read(place: int, name: str, max_bytes: int) -> bytes:
    descriptor = os.open(name, _READ_FILE, dir_fd=place)
    with os.fdopen(descriptor, "rb") as opened:
        return opened.read(max_bytes) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""


@contextmanager
def _named(name: str) -> Generator[None]:
    """Add the file name to an OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), name) from None
