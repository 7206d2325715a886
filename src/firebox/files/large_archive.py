"""Streaming extraction of large archives, such as toolchains with several hundred thousand files.

Unlike in `files.archive`, links are kept. Symlinks are created last, so nothing is ever written through one, and each is resolved
once to check that it stays inside.

Source: PEP 706; pax(1), "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, cast

from firebox.domain.errors import InvalidRequest

MAX_DEPTH = 64

_PIECE_BYTES = 1 << 20
_HEADER_BYTES = 4 << 20
"""Maximum bytes between the contents of two members: headers, long names, extended headers."""
_REST_BYTES = 64 << 20
"""Maximum bytes after the end of the archive."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DAMAGED = (
    tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, KeyError, RecursionError, OverflowError,
)  # fmt: skip
_MISSHAPEN = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
"""Errors caused by conflicting members or invalid names."""


class Bounds(NamedTuple):
    """Limits for an archive. home: the folder's path at run time; an absolute symlink below it stays inside."""

    max_bytes: int
    max_members: int
    home: str = ""


class Unpacked(NamedTuple):
    """Totals of an unpacked archive."""

    size_bytes: int
    members: int


def unpack_large(
    archive: Path, folder: Path, bounds: Bounds, on_progress: Callable[[int], None] = lambda _bytes: None
) -> Unpacked:
    """Unpack a .tar.gz into an empty folder. Of the permissions, only the executable bit is kept.

    on_progress: called regularly with the number of archive bytes read; an exception from it aborts the extraction. Raises:
    InvalidRequest for an absolute name, `..`, a device, a pipe, a duplicate or a link out of the folder, and for a corrupt or
    oversized archive; OSError if a file cannot be read or written. Files written before the error are left behind.
    """
    with _opened(archive, bounds, on_progress) as (source, opened), _Writer(archive, folder, bounds) as writer:
        _extract(archive, opened, source, writer)
        source.drain()
        return Unpacked(writer.size_bytes, writer.members)


@contextmanager
def _opened(archive: Path, bounds: Bounds, on_progress: Callable[[int], None]) -> Generator[tuple[_Source, tarfile.TarFile]]:
    """Open an archive for a single sequential read."""
    try:
        with archive.open("rb") as packed, gzip.open(packed) as compressed:
            source = _Source(archive, compressed, bounds, lambda: on_progress(packed.tell()))
            # A stream only needs `read`, but the type demands a complete file object.
            opened = tarfile.open(fileobj=cast("Any", source), mode="r|", tarinfo=_Member)  # noqa: SIM115 - closed below
            with opened:
                yield source, opened
    except _DAMAGED as error:
        raise InvalidRequest(f"{archive.name} is not a valid archive: {error}") from None


class _Member(tarfile.TarInfo):
    """A header that rejects sparse members: toolchains do not use them, and their maps are unbounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError("sparse members are not supported")
        return member


class _Source:
    """The decompressed archive, with limits on the bytes read."""

    def __init__(self, archive: Path, compressed: gzip.GzipFile, bounds: Bounds, on_progress: Callable[[], None]) -> None:
        self._archive = archive
        self._compressed = compressed
        self._remaining_bytes = bounds.max_bytes + bounds.max_members * 2048
        self._max_bytes = bounds.max_bytes
        self._header_bytes = _HEADER_BYTES
        self._on_progress = on_progress
        self._unreported_bytes = 0

    def read(self, count: int) -> bytes:
        data = self._compressed.read(count)
        self._remaining_bytes -= len(data)
        self._header_bytes -= len(data)
        self._unreported_bytes += len(data)
        if self._remaining_bytes < 0:
            raise InvalidRequest(f"{self._archive.name} contains more than {self._max_bytes} bytes")
        if self._header_bytes < 0:
            raise InvalidRequest(f"{self._archive.name} has a header of more than {_HEADER_BYTES} bytes")
        if self._unreported_bytes >= _PIECE_BYTES:
            self._unreported_bytes = 0
            self._on_progress()
        return data

    def expect(self, content_bytes: int) -> None:
        """Allow a member's content and the following header to be read."""
        self._header_bytes = content_bytes + _HEADER_BYTES

    def drain(self) -> None:
        """Read to the end to verify the gzip checksum."""
        self._header_bytes = _REST_BYTES
        while self.read(_PIECE_BYTES):
            pass


def _extract(archive: Path, opened: tarfile.TarFile, source: _Source, writer: _Writer) -> None:
    while (member := opened.next()) is not None:
        _forget_members(opened)
        if member.issparse():
            raise InvalidRequest(f"{archive.name} contains sparse members, which are not supported")
        parts = parts_inside(archive, member.name)
        if member.isdir():
            writer.folder(parts)
        elif not parts:
            raise _refused(archive, member.name, "is not a folder")
        elif member.isfile():
            if member.size < 0:
                raise _refused(archive, member.name, "has a negative size")
            source.expect(member.size)
            content = opened.extractfile(member)
            assert content is not None  # noqa: S101 - it is a file
            writer.file(parts, content, executable=bool(member.mode & 0o100))
        elif member.islnk():
            writer.hard_link(parts, parts_inside(archive, member.linkname))
        elif member.issym():
            writer.link(parts, member.linkname)
        else:
            raise _refused(archive, member.name, "is not a file, folder or link")
        source.expect(0)
    writer.make_links()


def _forget_members(opened: tarfile.TarFile) -> None:
    """Prevent tarfile from accumulating all members."""
    cast("Any", opened).members = []


def parts_inside(archive: Path, name: str) -> tuple[str, ...]:
    """Split a member name; () for the folder itself. Raises: InvalidRequest."""
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refused(archive, name, "is outside the folder")
    if len(parts) > MAX_DEPTH:
        raise _refused(archive, name, f"is nested {len(parts)} levels deep; the maximum is {MAX_DEPTH}")
    return parts


def _refused(archive: Path, name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{archive.name}: {name[:64]!r} {why}")


class _Writer:
    """Writes below one folder, never through a symlink. Keeps the last folder open, since the next member is usually in it."""

    def __init__(self, archive: Path, folder: Path, bounds: Bounds) -> None:
        self._archive = archive
        self._folder = folder
        self._bounds = bounds
        self._links: list[tuple[tuple[str, ...], str]] = []
        self._open: list[int] = []
        self._at: tuple[str, ...] = ()
        self.size_bytes = 0
        self.members = 0

    def __enter__(self) -> Self:
        self._open.append(os.open(self._folder, _FOLDER))
        return self

    def __exit__(self, *_exception: object) -> None:
        while self._open:
            os.close(self._open.pop())

    def folder(self, parts: tuple[str, ...]) -> None:
        """Create a folder and its parents."""
        self._count()
        self._enter(parts)

    def file(self, parts: tuple[str, ...], content: IO[bytes], *, executable: bool) -> None:
        """Write a new file."""
        self._count()
        mode = 0o755 if executable else 0o644
        try:
            descriptor = os.open(parts[-1], _NEW_FILE, mode, dir_fd=self._enter(parts[:-1]))
        except OSError as error:
            raise self._failure(error, parts) from None
        with os.fdopen(descriptor, "wb") as opened:
            os.fchmod(descriptor, mode)
            while piece := content.read(_PIECE_BYTES):
                self.size_bytes += len(piece)
                if self.size_bytes > self._bounds.max_bytes:
                    raise InvalidRequest(f"{self._archive.name} contains more than {self._bounds.max_bytes} bytes")
                opened.write(piece)

    def hard_link(self, parts: tuple[str, ...], target: tuple[str, ...]) -> None:
        """Create a hard link to a file that was already written."""
        self._count()
        if not target:
            raise _refused(self._archive, parts[-1], "is a hard link to no regular file")
        try:
            above = os.dup(self._enter(target[:-1], make=False))
            try:
                if not stat.S_ISREG(os.stat(target[-1], dir_fd=above, follow_symlinks=False).st_mode):
                    raise _refused(self._archive, parts[-1], "is a hard link to no regular file")
                os.link(target[-1], parts[-1], src_dir_fd=above, dst_dir_fd=self._enter(parts[:-1]), follow_symlinks=False)
            finally:
                os.close(above)
        except FileNotFoundError:
            raise _refused(self._archive, parts[-1], "is a hard link to a file that was not extracted before") from None
        except OSError as error:
            raise self._failure(error, parts) from None

    def link(self, parts: tuple[str, ...], target: str) -> None:
        """Record a symlink; an absolute target below `home` becomes relative."""
        self._count()
        home = self._bounds.home
        if home and (target == home or target.startswith(home + "/")):
            target = "../" * (len(parts) - 1) + (target[len(home) :].strip("/") or ".")
        if not target or target.startswith("/") or "\0" in target or len(target) > os.pathconf("/", "PC_PATH_MAX") - 1:
            raise _refused(self._archive, "/".join(parts), f"is a symlink to {target[:64]!r}, outside the folder")
        self._links.append((parts, target))

    def make_links(self) -> None:
        """Create the recorded symlinks, then check where each one leads."""
        for parts, target in self._links:
            try:
                os.symlink(target, parts[-1], dir_fd=self._enter(parts[:-1]))
            except OSError as error:
                raise self._failure(error, parts) from None
        root = self._folder.resolve()
        for parts, target in self._links:
            if not Path(os.path.realpath(root.joinpath(*parts))).is_relative_to(root):
                raise _refused(self._archive, "/".join(parts), f"is a symlink to {target[:64]!r}, outside the folder")

    def _enter(self, parts: tuple[str, ...], *, make: bool = True) -> int:
        """Open a folder below the root, creating missing ones, and keep the chain of folders open."""
        same = 0
        while same < min(len(parts), len(self._at)) and parts[same] == self._at[same]:
            same += 1
        while len(self._open) > same + 1:
            os.close(self._open.pop())
        self._at = parts[:same]
        for name in parts[same:]:
            try:
                if make:
                    self._make(name)
                self._open.append(os.open(name, _FOLDER, dir_fd=self._open[-1]))
            except OSError as error:
                raise self._failure(error, parts) from None
            self._at = (*self._at, name)
        return self._open[-1]

    def _make(self, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=self._open[-1])
        except FileExistsError:  # opening it fails if it is a file
            return
        os.chmod(name, 0o755, dir_fd=self._open[-1])  # noqa: S103 - independent of the umask

    def _count(self) -> None:
        self.members += 1
        if self.members > self._bounds.max_members:
            raise InvalidRequest(f"{self._archive.name} has more than {self._bounds.max_members} members")

    def _failure(self, error: OSError, parts: tuple[str, ...]) -> Exception:
        """Distinguish an invalid archive from a system error such as a full disk."""
        shown = "/".join(parts)
        if error.errno in _MISSHAPEN:
            return _refused(self._archive, shown, f"cannot be written: {error.strerror}")
        return OSError(error.errno, error.strerror or str(error), shown)


def read_member(archive: Path, name: str, max_bytes: int, bounds: Bounds) -> bytes | None:
    """Read one small file of a .tar.gz; None if it does not exist. Raises: InvalidRequest, OSError."""
    with _opened(archive, bounds, lambda _bytes: None) as (source, opened):
        members = 0
        while (member := opened.next()) is not None:
            _forget_members(opened)
            members += 1
            if members > bounds.max_members:
                raise InvalidRequest(f"{archive.name} has more than {bounds.max_members} members")
            source.expect(max(0, member.size))
            if parts_inside(archive, member.name) == (name,):
                if not member.isfile() or member.size > max_bytes:
                    raise InvalidRequest(f"{archive.name}: {name} is not a regular file of at most {max_bytes} bytes")
                content = opened.extractfile(member)
                return content.read(max_bytes) if content else None
    return None
