"""Operations on the folder tree of a package: validation, durability, removal. Symlinks are never followed."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from firebox.domain.errors import UnusablePackage
from firebox.files.atomic_write import sync_folder
from firebox.packages.installed.metadata import MAX_INODES

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOREIGN_BITS = stat.S_ISUID | stat.S_ISGID


@contextmanager
def opened(path: str | Path, flags: int = os.O_RDONLY | os.O_CLOEXEC, *, place: int | None = None) -> Generator[int]:
    """Yield a descriptor of a file or folder. place: descriptor of the folder that `path` is relative to. Raises: OSError."""
    descriptor = os.open(path, flags, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_and_own(folder: Path, name: str, max_bytes: int) -> None:
    """Check that an unpacked package has only files, folders and symlinks, and own them. Raises: UnusablePackage; OSError."""
    own = os.geteuid(), os.getegid()
    _own_folder(folder, None, own)
    remaining_bytes, remaining_inodes = max_bytes, MAX_INODES
    for place, folders, files, descriptor in os.fwalk(folder, follow_symlinks=False, onerror=_raise):
        for each in folders + files:
            status = os.stat(each, dir_fd=descriptor, follow_symlinks=False)
            shown = repr(str(Path(place, each).relative_to(folder))[:200])
            kind = stat.S_IFMT(status.st_mode)
            if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
                raise UnusablePackage(f"{name}: {shown} is not a file, folder or symlink")
            if kind != stat.S_IFLNK and status.st_mode & _FOREIGN_BITS:
                raise UnusablePackage(f"{name}: {shown} is setuid or setgid")
            remaining_inodes -= 1
            remaining_bytes -= status.st_size if kind == stat.S_IFREG else 0
            if remaining_inodes < 0 or remaining_bytes < 0:
                raise UnusablePackage(f"{name} contains more than {MAX_INODES} files or {max_bytes} bytes")
            if kind == stat.S_IFDIR:
                _own_folder(each, descriptor, own)
            elif (status.st_uid, status.st_gid) != own:
                os.chown(each, *own, dir_fd=descriptor, follow_symlinks=False)


def disk_usage(folder: Path) -> int:
    """Return the disk usage of a folder. Raises: OSError."""
    found = os.walk(folder, onerror=_raise)
    return sum(Path(place, each).lstat().st_blocks * 512 for place, folders, files in found for each in folders + files)


def sync_file_system(folder: Path) -> None:
    """Flush the file system of this folder to disk: faster than syncing many files. Raises: OSError. Source: syncfs(2)."""
    with opened(folder, FOLDER) as descriptor:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))


def sync_files(folder: Path) -> None:
    """Flush a folder and its direct files to disk. Raises: OSError. Source: fsync(2)."""
    for file in folder.iterdir():
        with opened(file, FILE) as descriptor:
            os.fsync(descriptor)
    sync_folder(folder)


def remove(path: Path) -> None:
    """Remove a folder tree regardless of its permissions, or do nothing if it does not exist. Raises: OSError."""
    with suppress(FileNotFoundError), opened(path.parent, FOLDER) as place:
        _remove(place, path.name)


def _remove(place: int, name: str) -> None:
    """Remove a tree relative to an open folder: in deep trees, full paths would exceed the system limit."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=place)
            return
        with suppress(PermissionError):
            os.chmod(name, 0o700, dir_fd=place)
        with opened(name, FOLDER, place=place) as folder:
            for each in os.listdir(folder):  # noqa: PTH208 - by descriptor
                _remove(folder, each)
        os.rmdir(name, dir_fd=place)


def _own_folder(name: str | Path, place: int | None, own: tuple[int, int]) -> None:
    """Take ownership of a folder and make it accessible, through a file descriptor so that it cannot be swapped."""
    with opened(name, os.O_PATH | FOLDER, place=place) as descriptor:
        status = os.fstat(descriptor)
        if (status.st_uid, status.st_gid) != own:
            os.chown(f"/proc/self/fd/{descriptor}", *own)
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _raise(error: OSError) -> None:
    raise error
