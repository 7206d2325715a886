"""Preparation of a package in its staging folder: copied or unpacked, validated, its metadata read."""

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
from firebox.files.checksum import file_checksum
from firebox.files.large_archive import Bounds, read_member, unpack_large
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.installed.image import MAGIC, Image, check_image
from firebox.packages.installed.metadata import (
    INFO_BYTES,
    MAX_INODES,
    RUNTIMES_BYTES,
    PackageInfo,
    check_matches,
    read_info,
    read_runtimes,
)
from firebox.packages.installed.piston_archive import ENVIRONMENT, GZIP_MAGIC, RUN, is_regular_file, piston_home
from firebox.packages.installed.staging import in_thread
from firebox.packages.installed.store import IMAGE, INFO, RUNTIMES, TREE
from firebox.packages.installed.tree import FILE, check_and_own, opened, remove
from firebox.packages.repository.index import CHECKSUM_DIGITS
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.launcher.squashfs_support import cannot_mount

_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 4096


class Prepared(Struct, frozen=True, kw_only=True):
    """A package whose files are staged."""

    info: PackageInfo
    kind: Literal["image", "folder"]
    runtimes: list[Runtime] = []
    """Contents of `runtimes.json`; empty for Piston packages, whose runtimes depend on their environment."""
    piston_tree: Path | None = None
    """Folder with the files of a Piston package; None for other packages."""


async def describe(file: Path, max_bytes: int) -> Entry:
    """Create an entry from the metadata in a package file. Raises: UnusablePackage, OSError."""
    name = file.name
    if await in_thread(lambda: is_image(file, name)):
        image = await check_image(file, name=name, max_bytes=max_bytes)
        data, size_bytes = await image.read_file(INFO, INFO_BYTES), image.size_bytes
    else:
        data, size_bytes = await in_thread(lambda: _read_archive_info(file, name, max_bytes)), 0
    info = read_info(data, name)
    return await in_thread(lambda: entry_of_info(info, file, size_bytes))


def entry_of_info(info: PackageInfo, file: Path, size_bytes: int) -> Entry:
    """Create the entry of a package file. size_bytes: unpacked; 0 if unknown."""
    return Entry(
        language=info.language,
        version=info.version,
        author=info.author,
        checksums={"sha256": file_checksum(file)},
        dependencies=info.dependencies,
        size_bytes=size_bytes,
        download=file.absolute().as_uri(),
        architecture=info.architecture,
    )


async def prepare(file: Path, staging: Path, entry: Entry, max_bytes: int, report: Report, *, may_link: bool) -> Prepared:
    """Fill the staging folder of a package with everything except its description.

    may_link: the file is private to Firebox and immutable, so a hard link replaces the copy.
    Raises: UnusablePackage, WrongChecksum, PackageError; OSError if the disk is full.
    """
    free_bytes = shutil.disk_usage(staging).free
    if entry.size_bytes > free_bytes:  # checked early; the size is unverified, so the bytes written are counted later
        raise PackageError(
            f"{entry.name} needs {entry.size_bytes} bytes, but only {free_bytes} are free on the disk of {staging.parent}",
            hint="free disk space, or set data_dir to another disk",
        )
    stop = Event()
    packed = staging / "package"
    await in_thread(lambda: _stage_file(file, packed, entry, stop, may_link=may_link), stop)
    if await in_thread(lambda: is_image(packed, entry.name)):
        report(Progress(package=entry.name, step="unpack", words="checking the image"))
        image = await check_image(packed, name=entry.name, max_bytes=max_bytes)
        return await _prepare_image(image, staging, entry, report)
    return await in_thread(lambda: _prepare_archive(packed, staging, entry, max_bytes, report, stop), stop)


def _prepare_archive(packed: Path, staging: Path, entry: Entry, max_bytes: int, report: Report, stop: Event) -> Prepared:
    tree = _piston_tree(staging, entry)
    total = packed.stat().st_size

    def on_progress(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        report(Progress(package=entry.name, step="unpack", done=done, total=total))

    tree.mkdir(parents=True)
    _make_readable(staging / TREE, tree)
    try:
        bounds = Bounds(max_bytes, MAX_INODES, piston_home(entry.language, entry.version))
        unpack_large(packed, tree, bounds, on_progress)
    except InvalidRequest as error:
        raise UnusablePackage(f"{entry.name}: {error.message}") from None
    if not is_regular_file(tree / INFO):
        raise UnusablePackage(f"{entry.name}: the package has no file {INFO}")
    with opened(tree / INFO, FILE) as descriptor:
        data = os.read(descriptor, INFO_BYTES + 1)
    if len(data) > INFO_BYTES:
        raise UnusablePackage(f"{INFO} is larger than {INFO_BYTES} bytes")
    info = read_info(data, entry.name)
    check_matches(info, entry)
    packed.unlink()
    write_file(staging / INFO, data)
    return Prepared(info=info, kind="folder", piston_tree=tree)


def is_image(file: Path, name: str) -> bool:
    """Distinguish a squashfs image from a .tar.gz. Raises: UnusablePackage for anything else; OSError."""
    with file.open("rb") as packed:
        beginning = packed.read(4)
    if beginning == MAGIC:
        return True
    if beginning.startswith(GZIP_MAGIC):
        return False
    raise UnusablePackage(f"{name}: not a squashfs image or .tar.gz archive")


async def _prepare_image(image: Image, staging: Path, entry: Entry, report: Report) -> Prepared:
    name = entry.name
    data = await image.read_file(INFO, INFO_BYTES)
    info = read_info(data, name)
    check_matches(info, entry)
    write_file(staging / INFO, data)
    if TREE not in image.folders:
        if TREE in image.names:
            raise UnusablePackage(f"{name}: the image has no folder {TREE}")
        if RUN not in image.files and ENVIRONMENT not in image.files:
            raise UnusablePackage(f"{name}: the image has neither a folder {TREE} nor a file {RUN}")
        tree = _piston_tree(staging, entry)
        await _unpack_image(image, ".", staging, tree, report)
        return Prepared(info=info, kind="folder", piston_tree=tree)

    if RUN in image.files:
        raise UnusablePackage(f"{name}: the image has both a folder {TREE} and a file {RUN}")
    runtimes: list[Runtime] = []
    if RUNTIMES in image.names:
        runtimes = read_runtimes(await image.read_file(RUNTIMES, RUNTIMES_BYTES), name)
    if await in_thread(cannot_mount):
        await _unpack_image(image, TREE, staging, staging / TREE, report)
        return Prepared(info=info, kind="folder", runtimes=runtimes)
    await in_thread(lambda: _store_image(image.path, staging / IMAGE))
    return Prepared(info=info, kind="image", runtimes=runtimes)


async def _unpack_image(image: Image, part: str, staging: Path, target: Path, report: Report) -> None:
    """Unpack an image, move one of its folders into place and delete the image."""
    unpacked = staging / "unpacked"
    await in_thread(lambda: unpacked.mkdir(mode=0o700))
    await image.unpack(unpacked, lambda _output: report(Progress(package=image.name, step="unpack", words="unpacking the image")))

    def put() -> None:
        check_and_own(unpacked, image.name, image.max_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        (unpacked / part).rename(target)
        _make_readable(staging / TREE, target)
        remove(unpacked)
        image.path.unlink()

    await in_thread(put)


def _piston_tree(staging: Path, entry: Entry) -> Path:
    return staging / TREE / piston_home(entry.language, entry.version).lstrip("/")


def _read_archive_info(file: Path, name: str, max_bytes: int) -> bytes:
    try:
        data = read_member(file, INFO, INFO_BYTES, Bounds(max_bytes, MAX_INODES))
    except InvalidRequest as error:
        raise UnusablePackage(f"{name}: {error.message}") from None
    if data is None:
        raise UnusablePackage(f"{name}: the archive has no file {INFO}")
    return data


def _stage_file(file: Path, packed: Path, entry: Entry, stop: Event, *, may_link: bool) -> None:
    """Link or copy the file into the staging folder, where nothing else modifies it. Verify the checksums of a copy."""
    if may_link:
        with contextlib.suppress(OSError):
            os.link(file, packed, follow_symlinks=False)
            packed.chmod(0o644)
            return
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in CHECKSUM_DIGITS if kind in entry.checksums}
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


def _store_image(packed: Path, target: Path) -> None:
    """Move the image to its final name, padded to a block boundary, so that a loop device exposes all of it."""
    missing_bytes = -packed.stat().st_size % _BLOCK_BYTES
    if missing_bytes and packed.stat().st_nlink > 1:  # a hard link to the download, which must not change
        shutil.copyfile(packed, target)
        packed.unlink()
    else:
        packed.rename(target)
    if missing_bytes:
        with target.open("ab") as file:
            file.write(bytes(missing_bytes))
    target.chmod(0o644)


def _make_readable(top: Path, bottom: Path) -> None:
    """Make the folders from `bottom` up to `top` readable by all users, independent of the umask."""
    for place in (bottom, *bottom.parents):
        place.chmod(0o755)
        if place == top:
            return


def write_file(path: Path, data: bytes) -> None:
    """Write a file that all users may read, independent of the umask."""
    path.write_bytes(data)
    path.chmod(0o644)


class _StoppedError(Exception):
    """The task that awaits this thread was cancelled."""
