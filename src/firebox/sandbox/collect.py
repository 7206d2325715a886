"""Taking files out of a sandbox, from inside it, with no more rights than the program had."""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator

from firebox.sandbox import spec
from firebox.sandbox.patterns import Pattern

INDEX_BYTES = 8 << 20
"""Longest index that the reader takes."""
TOO_LARGE = "too large"
TOO_MANY = "too many"
TOO_MANY_ENTRIES = "too many entries"
OUT_OF_TIME = "out of time"
NO_MATCH = "no such file"
"""Why something was left out, where the kernel has no words for it."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDERS_DEEP = 64
_ENTRIES = 200_000
_SKIPPED = 100
_NAME_SHOWN = 64
_NAMES_BYTES = INDEX_BYTES // 2
"""All names of one index together, as JSON: what is left is for the other fields and for what was left out."""


class _Skipped(list[tuple[str, str]]):
    """What was left out and why: the first ones only, a program can make more of them than fit into memory."""

    def add(self, name: str, why: str) -> None:
        if len(self) < _SKIPPED:
            self.append((name, why))


class _OutOfTime(Exception):
    """The time for collecting is over."""


def collect(sink: int, patterns: list[str], max_bytes: int, max_files: int, budget_ms: float) -> None:
    """Send the files that match: a length and a JSON index, then the contents one after the other.

    Everything else is dead by now, so nothing changes under us and a file can be opened again by its name. Links are never
    followed, only regular files are opened. budget_ms: how long to look for files; those found until then are sent.
    """
    began_ms = time.process_time() * 1000
    search = _Search(patterns, time.monotonic() + budget_ms / 1000)
    index: list[tuple[str, int, int]] = []
    total, names_bytes = 0, 0
    for name, status in search.files():
        name_bytes = len(spec.encode({"": name}))
        if total + status.st_size > max_bytes:
            search.skipped.add(name, TOO_LARGE)
        elif len(index) >= max_files or names_bytes + name_bytes > _NAMES_BYTES:
            search.skipped.add(name, TOO_MANY)
        else:
            total += status.st_size
            names_bytes += name_bytes
            index.append((name, status.st_size, stat.S_IMODE(status.st_mode) & 0o755))
    for pattern in search.without_match:
        search.skipped.add(pattern, search.folders.get(pattern, NO_MATCH))
    cpu_ms = time.process_time() * 1000 - began_ms
    header = spec.encode({"files": index, "skipped": search.skipped, "cpu_ms": cpu_ms})
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


class _Search:
    """Looks through the working directory.

    deadline: on the monotonic clock. skipped: what was left out and why. without_match: patterns that matched nothing so far;
    none where not every folder could be looked into. folders: patterns that are the name of a folder, and words about that.
    """

    def __init__(self, patterns: Iterable[str], deadline: float) -> None:
        self._patterns = {pattern: Pattern(pattern) for pattern in patterns}
        self._deadline = deadline
        self._seen = 0
        self.skipped = _Skipped()
        self.without_match = dict.fromkeys(self._patterns)
        self.folders: dict[str, str] = {}

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield name and status of each regular file that matches and may be read, in a stable order."""
        # Folders to be looked into, as (path of the parent, name): a hundred thousand whole paths would be gigabytes.
        folders: list[tuple[str, str]] = [("", "")]
        while folders:
            parent, own = folders.pop()
            folder = f"{parent}/{own}" if parent else own
            try:
                found, deeper = self._look_into(folder)
                for name in found:
                    status = self._status(name)
                    if status is not None:
                        yield name, status
            except _OutOfTime:
                self.skipped.add(folder, OUT_OF_TIME)
                self.without_match.clear()
                return
            if self._seen > _ENTRIES:
                self.skipped.add(folder, TOO_MANY_ENTRIES)
                self.without_match.clear()
                return
            folders += [(folder, each) for each in sorted(deeper, reverse=True)]

    def _look_into(self, folder: str) -> tuple[list[str], list[str]]:
        """Return what matches in a folder, in order, and the names of its folders. Raises: _OutOfTime."""
        found: list[str] = []
        deeper: list[str] = []
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    self._check_time()
                    self._seen += 1
                    if self._seen > _ENTRIES:
                        break
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        self._note_folder(name)
                        if name.count("/") < _FOLDERS_DEEP:
                            deeper.append(entry.name)
                    elif self._matches(name):
                        found.append(name)
        except OSError as error:
            self.skipped.add(folder, os.strerror(error.errno or 0))
            self.without_match.clear()
        return sorted(found), deeper

    def _status(self, name: str) -> os.stat_result | None:
        """Return the status of a file that can be taken. Raises: _OutOfTime."""
        self._check_time()
        try:
            status = os.stat(name, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                os.close(os.open(name, _READ))
                return status
            self.skipped.add(name, "not a regular file")
        except OSError as error:
            self.skipped.add(name, os.strerror(error.errno or 0))
        return None

    def _matches(self, name: str) -> bool:
        matched = False
        for text, pattern in self._patterns.items():
            if matched and text not in self.without_match:
                continue
            self._check_time()
            if pattern.matches(name):
                matched = True
                self.without_match.pop(text, None)
                if not self.without_match:
                    break
        return matched

    def _note_folder(self, name: str) -> None:
        """Remember a folder that was asked for by its name: the files in it are not meant by that."""
        if name in self.without_match:
            self.folders[name] = f"a folder; {name[:_NAME_SHOWN]}/* means its files"

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise _OutOfTime


def _send_all(sink: int, data: bytes) -> None:
    while data:
        data = data[os.write(sink, data) :]
