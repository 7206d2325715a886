"""Taking files out of a sandbox, from inside it, with no more rights than the program had."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from fnmatch import fnmatchcase

from firebox.sandbox import spec

_FOLDERS_DEEP = 64
_ENTRIES = 200_000


def collect(sink: int, patterns: list[str], max_bytes: int, max_files: int) -> None:
    """Send the files that match: a length and a JSON index, then the contents one after the other.

    Everything else is dead by now, so nothing changes under us. Links are never followed, only regular files are opened.
    """
    index: list[tuple[str, int, int]] = []
    skipped: list[tuple[str, str]] = []
    opened: list[tuple[int, int]] = []
    total = 0
    for name, descriptor, status in _regular_files(skipped):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            os.close(descriptor)
        elif total + status.st_size > max_bytes or len(index) >= max_files:
            os.close(descriptor)
            skipped.append((name, "too large" if total + status.st_size > max_bytes else "too many"))
        else:
            total += status.st_size
            index.append((name, status.st_size, stat.S_IMODE(status.st_mode) & 0o755))
            opened.append((descriptor, status.st_size))
            if len(opened) > 256:  # keep few descriptors: what has a place in the index is read again by name
                os.close(opened[-1][0])
                opened[-1] = (-1, status.st_size)
    header = spec.encode({"files": index, "skipped": skipped[:100]})
    _send_all(sink, struct.pack("<I", len(header)) + header)
    for (descriptor, size), (name, _size, _mode) in zip(opened, index, strict=True):
        if descriptor < 0:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        offset = 0
        while offset < size:
            sent = os.sendfile(sink, descriptor, offset, size - offset)
            if sent == 0:
                return  # the reader sees a short pack and refuses it
            offset += sent
        os.close(descriptor)


def _regular_files(skipped: list[tuple[str, str]]) -> Iterator[tuple[str, int, os.stat_result]]:
    """Yield (name, open descriptor, status) of each regular file below the working directory, in a stable order."""
    seen = 0
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            skipped.append((folder, os.strerror(error.errno or 0)))
            continue
        names = sorted(os.listdir(descriptor))
        deeper: list[str] = []
        for each in names:
            seen += 1
            if seen > _ENTRIES:
                os.close(descriptor)
                skipped.append((folder, "too many entries"))
                return
            name = f"{folder}/{each}" if folder else each
            try:
                status = os.stat(each, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if name.count("/") < _FOLDERS_DEEP:
                        deeper.append(name)
                    continue
                if not stat.S_ISREG(status.st_mode):
                    skipped.append((name, "not a regular file"))
                    continue
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(each, flags, dir_fd=descriptor)
            except OSError as error:
                skipped.append((name, os.strerror(error.errno or 0)))
                continue
            yield name, file, os.fstat(file)
        os.close(descriptor)
        folders += reversed(deeper)


def _send_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]
