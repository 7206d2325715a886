"""Safe extraction of small archives: only files and folders, confined to the target folder, with bounded size.

Source: PEP 706; docs/reference/rce-runner.md, "bootstrap.tar.gz".
"""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import IO

from firebox.domain.errors import InvalidRequest
from firebox.domain.model import File
from firebox.files.folder import make_folder, write_files

MAX_BYTES = 256 << 20
"""Maximum total unpacked size."""
MAX_MEMBERS = 20_000
MAX_DEPTH = 32

_HEADERS_BYTES = MAX_MEMBERS * 2048
_PIECE_BYTES = 1 << 20


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into an existing folder. Existing files of the same name are replaced.

    Links become copies of the archive members they refer to. Of the permissions, only the executable bit is kept.
    Raises: InvalidRequest for an absolute name, `..`, a device, a pipe or any other link, and for a corrupt or oversized archive;
    OSError if a file cannot be read or written.
    """
    with tempfile.TemporaryFile(prefix="firebox-archive-") as plain:
        _decompress(archive, plain)
        try:
            with tarfile.open(fileobj=plain, mode="r:") as opened:
                _unpack(archive, opened, folder)
        except (tarfile.TarError, EOFError, ValueError, KeyError, RecursionError) as error:
            raise InvalidRequest(f"{archive} is not a valid archive: {error}") from None


def _decompress(archive: Path, plain: IO[bytes]) -> None:
    """Decompress to a temporary file first, so that a decompression bomb is detected before parsing."""
    remaining_bytes = MAX_BYTES + _HEADERS_BYTES
    try:
        with gzip.open(archive) as compressed:
            while piece := compressed.read(_PIECE_BYTES):
                remaining_bytes -= len(piece)
                if remaining_bytes < 0:
                    raise InvalidRequest(f"{archive} contains more than {MAX_BYTES} bytes")
                plain.write(piece)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidRequest(f"{archive} is not a valid gzip file: {error}") from None
    plain.seek(0)


def _unpack(archive: Path, opened: tarfile.TarFile, folder: Path) -> None:
    members: list[tarfile.TarInfo] = []
    while (member := opened.next()) is not None:
        members.append(member)
        if len(members) > MAX_MEMBERS:
            raise InvalidRequest(f"{archive} has more than {MAX_MEMBERS} members")
    remaining_bytes = MAX_BYTES
    for member in members:
        name = _inside(archive, member.name)
        if member.isdir():
            if name:
                make_folder(folder, name)
            continue
        content = opened.extractfile(member) if name and (member.isfile() or member.issym() or member.islnk()) else None
        if content is None:
            raise InvalidRequest(f"{archive}: {member.name[:64]!r} is not a file, folder or link to a file")
        data = content.read(remaining_bytes + 1)
        remaining_bytes -= len(data)
        if remaining_bytes < 0:
            raise InvalidRequest(f"{archive} contains more than {MAX_BYTES} bytes")
        write_files(folder, [File(name, data)], mode=0o755 if member.mode & 0o100 else 0o644)


def _inside(archive: Path, name: str) -> str:
    """Normalize a member name; "" for the folder itself. Raises: InvalidRequest."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise InvalidRequest(f"{archive}: {name[:64]!r} is outside the folder")
    if len(parts) > MAX_DEPTH:
        raise InvalidRequest(f"{archive}: {name[:64]!r} is nested {len(parts)} levels deep; the maximum is {MAX_DEPTH}")
    return "/".join(parts)
