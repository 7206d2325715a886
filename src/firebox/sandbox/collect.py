"""Taking files out of a sandbox, from inside it, with no more rights than the program had."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

from firebox.sandbox import spec

INDEX_BYTES = 8 << 20
"""Longest index that the reader takes."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDERS_DEEP = 64
_ENTRIES = 200_000
_SKIPPED = 100
_NAMES_BYTES = INDEX_BYTES // 2
"""All names of one index together, as JSON: what is left is for the other fields and for what was left out."""


class _Skipped(list[tuple[str, str]]):
    """What was left out and why: the first ones only, a program can make more of them than fit into memory."""

    def add(self, name: str, why: str) -> None:
        if len(self) < _SKIPPED:
            self.append((name, why))


def collect(sink: int, patterns: list[str], max_bytes: int, max_files: int) -> None:
    """Send the files that match: a length and a JSON index, then the contents one after the other.

    Everything else is dead by now, so nothing changes under us and a file can be opened again by its name. Links are never
    followed, only regular files are opened.
    """
    index: list[tuple[str, int, int]] = []
    skipped = _Skipped()
    total, names_bytes = 0, 0
    for name, status in _regular_files(lambda name: any(fnmatchcase(name, pattern) for pattern in patterns), skipped):
        name_bytes = len(spec.encode({"": name}))
        if total + status.st_size > max_bytes:
            skipped.add(name, "too large")
        elif len(index) >= max_files or names_bytes + name_bytes > _NAMES_BYTES:
            skipped.add(name, "too many")
        else:
            total += status.st_size
            names_bytes += name_bytes
            index.append((name, status.st_size, stat.S_IMODE(status.st_mode) & 0o755))
    header = spec.encode({"files": index, "skipped": skipped})
    _send_all(sink, struct.pack("<I", len(header)) + header)
    for name, size, _mode in index:
        descriptor = os.open(name, _READ)
        offset = 0
        while offset < size:
            sent = os.sendfile(sink, descriptor, offset, size - offset)
            if sent == 0:
                return  # the reader sees a short pack and refuses it
            offset += sent
        os.close(descriptor)


def _regular_files(wanted: Callable[[str], bool], skipped: _Skipped) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of each regular file in the working directory that is wanted and may be read, in a stable order."""
    seen = 0
    # Folders to be looked into, as (path of the parent, name): a hundred thousand whole paths would be gigabytes.
    folders: list[tuple[str, str]] = [("", "")]
    while folders:
        parent, own = folders.pop()
        folder = f"{parent}/{own}" if parent else own
        try:
            descriptor = os.open(folder or ".", _READ | os.O_DIRECTORY)
        except OSError as error:
            skipped.add(folder, os.strerror(error.errno or 0))
            continue
        deeper: list[str] = []
        for each in sorted(os.listdir(descriptor)):
            seen += 1
            if seen > _ENTRIES:
                os.close(descriptor)
                skipped.add(folder, "too many entries")
                return
            name = f"{folder}/{each}" if folder else each
            try:
                status = os.stat(each, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if name.count("/") < _FOLDERS_DEEP:
                        deeper.append(each)
                    continue
                if not wanted(name):
                    continue
                if not stat.S_ISREG(status.st_mode):
                    skipped.add(name, "not a regular file")
                    continue
                os.close(os.open(name, _READ))
            except OSError as error:
                if wanted(name):
                    skipped.add(name, os.strerror(error.errno or 0))
                continue
            yield name, status
        os.close(descriptor)
        folders += [(folder, each) for each in reversed(deeper)]


def _send_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]
