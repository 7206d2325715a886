"""From a package's file to what its folder will hold: copied or unpacked, checked, its descriptions read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from threading import Event
from typing import Literal

from msgspec import Struct

from firebox.domain.errors import InvalidRequest, PackageError, UnusablePackage, WrongChecksum
from firebox.files.large_archive import Bounds, read_member
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.installed import image, piston_archive
from firebox.packages.installed.metadata import (
    INFO_BYTES,
    MAX_INODES,
    RUNTIMES_BYTES,
    PackageInfo,
    check_is,
    read_info,
    read_runtimes,
)
from firebox.packages.installed.piston_archive import home_of, unpack_archive
from firebox.packages.installed.staging import in_thread
from firebox.packages.installed.store import IMAGE, INFO, RUNTIMES, TREE
from firebox.packages.installed.tree import remove, settle
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.squashfs_support import cannot_mount

_PIECE_BYTES = 1 << 20
_STRONGEST_FIRST = ("sha512", "sha256", "sha1", "md5")
_PACKED = "package"
_UNPACKED = "unpacked"


class Prepared(Struct, frozen=True, kw_only=True):
    """A package whose files are in place."""

    info: PackageInfo
    kind: Literal["image", "folder"]
    runtimes: list[Runtime]
    """What `runtimes.json` says; empty for Piston's packages, whose runtimes need their environment first."""
    piston_tree: Path | None
    """Where the files of a Piston package are; None for ours."""


async def describe(file: Path, max_bytes: int) -> Entry:
    """Read what a package file says of itself and make an entry of it. Raises: UnusablePackage, OSError."""
    name = file.name
    if await in_thread(lambda: is_image(file, name)):
        await in_thread(lambda: image.read_superblock(file, name))
        contents = await image.look_into(file, name, max_bytes)
        info = read_info(await _member(file, name, contents, INFO, INFO_BYTES), name)
        size_bytes = contents.size_bytes
    else:
        data = await in_thread(lambda: _archived_info(file, name, max_bytes))
        info, size_bytes = read_info(data, name), 0
    checksum = await in_thread(lambda: _checksum(file, "sha256"))
    return Entry(
        language=info.language,
        version=info.version,
        author=info.author,
        checksums={"sha256": checksum},
        dependencies=info.dependencies,
        size_bytes=size_bytes,
        download=file.as_uri(),
        architecture=info.architecture,
    )


async def prepare(file: Path, room: Path, entry: Entry, max_bytes: int, report: Report, *, may_link: bool) -> Prepared:
    """Fill the staging folder of a package with what it will hold when installed, except for its own description.

    may_link: the file is ours and nobody changes it any more, so it need not be copied.
    Raises: UnusablePackage, WrongChecksum, PackageError; OSError when the disk is full.
    """
    _check_room(room, entry)
    stop = Event()
    packed = room / _PACKED
    await in_thread(lambda: _take_over(file, packed, entry, may_link=may_link, stop=stop), stop)
    if await in_thread(lambda: is_image(packed, entry.name)):
        return await _prepare_image(packed, room, entry, max_bytes, report)

    tree = _piston_tree(room, entry)
    total = packed.stat().st_size

    def tell(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        report(Progress(package=entry.name, step="unpack", done=done, total=total))

    def unpack() -> PackageInfo:
        tree.mkdir(parents=True)
        _open_to_all(room / TREE, tree)
        info = unpack_archive(packed, entry.name, tree, home_of(entry.language, entry.version), max_bytes, tell)
        check_is(info, entry)
        packed.unlink()
        _write(room / INFO, (tree / INFO).read_bytes())
        return info

    return Prepared(info=await in_thread(unpack, stop), kind="folder", runtimes=[], piston_tree=tree)


def is_image(file: Path, name: str) -> bool:
    """Tell a squashfs image from a .tar.gz. Raises: UnusablePackage for anything else; OSError."""
    with file.open("rb") as opened:
        beginning = opened.read(4)
    if beginning == image.MAGIC:
        return True
    if beginning.startswith(piston_archive.MAGIC):
        return False
    raise UnusablePackage(f"{name}: the file is neither a squashfs image nor a .tar.gz")


async def _prepare_image(packed: Path, room: Path, entry: Entry, max_bytes: int, report: Report) -> Prepared:
    name = entry.name
    report(Progress(package=name, step="unpack", words="looking through the image"))
    await in_thread(lambda: image.read_superblock(packed, name))
    contents = await image.look_into(packed, name, max_bytes)
    data = await _member(packed, name, contents, INFO, INFO_BYTES)
    info = read_info(data, name)
    check_is(info, entry)
    _write(room / INFO, data)
    if image.TREE not in contents.folders:
        if image.TREE in contents.names:
            raise UnusablePackage(f"{name}: there is no folder {image.TREE} in the image")
        if piston_archive.RUN not in contents.files and piston_archive.ENVIRONMENT not in contents.files:
            raise UnusablePackage(f"{name}: the image holds neither a folder {image.TREE} nor a file {piston_archive.RUN}")
        tree = _piston_tree(room, entry)
        await _unpack_image(packed, room, name, ".", tree, max_bytes, report)
        return Prepared(info=info, kind="folder", runtimes=[], piston_tree=tree)

    if piston_archive.RUN in contents.files:
        raise UnusablePackage(f"{name}: the image holds both a folder {image.TREE} and a file {piston_archive.RUN}")
    runtimes: list[Runtime] = []
    if RUNTIMES in contents.names:
        runtimes = read_runtimes(await _member(packed, name, contents, RUNTIMES, RUNTIMES_BYTES), name)
    if await in_thread(cannot_mount):
        await _unpack_image(packed, room, name, image.TREE, room / TREE, max_bytes, report)
        return Prepared(info=info, kind="folder", runtimes=runtimes, piston_tree=None)
    await in_thread(lambda: _keep_image(packed, room / IMAGE))
    return Prepared(info=info, kind="image", runtimes=runtimes, piston_tree=None)


async def _unpack_image(packed: Path, room: Path, name: str, part: str, target: Path, max_bytes: int, report: Report) -> None:
    """Unpack an image and put one folder of it where it belongs; the image goes."""
    unpacked = room / _UNPACKED
    await in_thread(lambda: unpacked.mkdir(mode=0o700))
    await image.unpack_image(
        packed, name, unpacked, lambda _words: report(Progress(package=name, step="unpack", words="unpacking the image"))
    )

    def put() -> None:
        settle(unpacked, name, max_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked if part == "." else unpacked / part).rename(target)
        _open_to_all(room / TREE, target)
        remove(unpacked)
        packed.unlink()

    await in_thread(put)


async def _member(file: Path, name: str, contents: image.Contents, member: str, max_bytes: int) -> bytes:
    """Read one of the two small files of an image's top level. Raises: UnusablePackage when there is none such."""
    size_bytes = contents.files.get(member)
    if size_bytes is None:
        raise UnusablePackage(f"{name}: there is no file {member} in the image")
    if size_bytes > max_bytes:
        raise UnusablePackage(f"{name}: {member} is larger than {max_bytes} bytes")
    return await image.read_file(file, name, member, max_bytes)


def _piston_tree(room: Path, entry: Entry) -> Path:
    return room / TREE / home_of(entry.language, entry.version).lstrip("/")


def _archived_info(file: Path, name: str, max_bytes: int) -> bytes:
    try:
        data = read_member(file, INFO, INFO_BYTES, Bounds(max_bytes, MAX_INODES))
    except InvalidRequest as error:
        raise UnusablePackage(f"{name}: {error.message}") from None
    if data is None:
        raise UnusablePackage(f"{name}: there is no file {INFO} in it")
    return data


def _take_over(file: Path, packed: Path, entry: Entry, *, may_link: bool, stop: Event) -> None:
    """Have the file in our own folder, where nobody changes it, and see that it is still the one that was announced."""
    if may_link:
        with contextlib.suppress(OSError):
            os.link(file, packed, follow_symlinks=False)
            packed.chmod(0o644)
            return
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in _STRONGEST_FIRST if kind in entry.checksums}
    with file.open("rb") as source, packed.open("xb") as target:
        while piece := source.read(_PIECE_BYTES):
            if stop.is_set():
                raise _StoppedError
            target.write(piece)
            for digest in digests.values():
                digest.update(piece)
    packed.chmod(0o644)
    for kind, digest in digests.items():
        if digest.hexdigest() != entry.checksums[kind]:
            raise WrongChecksum(f"{entry.name}: the {kind} of {file} is {digest.hexdigest()}, not {entry.checksums[kind]}")


def _keep_image(packed: Path, target: Path) -> None:
    """Give the image its name; a copy of its own is made when the file may not be changed and has to be."""
    if packed.stat().st_size % image.BLOCK_BYTES and packed.stat().st_nlink > 1:
        shutil.copyfile(packed, target)
        packed.unlink()
    else:
        packed.rename(target)
    image.fill_last_block(target)
    target.chmod(0o644)


def _check_room(room: Path, entry: Entry) -> None:
    """Refuse at once what cannot fit. The size is the repository's word; what is written is counted later."""
    free_bytes = shutil.disk_usage(room).free
    if entry.size_bytes > free_bytes:
        raise PackageError(
            f"{entry.name} needs {entry.size_bytes} bytes, {free_bytes} are free on the disk of {room.parent}",
            hint="make room on that disk, or set data_dir to another one",
        )


def _checksum(file: Path, kind: str) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, kind).hexdigest()


def _open_to_all(top: Path, bottom: Path) -> None:
    """Let every user look into the folders between two places, whatever the umask is."""
    for place in (bottom, *bottom.parents):
        place.chmod(0o755)
        if place == top:
            return


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


class _StoppedError(Exception):
    """The task that waits for this thread was cancelled."""
