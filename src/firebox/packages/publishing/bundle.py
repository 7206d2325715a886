"""Packages in one file, for machines without a network: a tar with `bundle.json` first, then each package as it was published.

What is imported lands in the repository `built`, after the same checks that a download gets.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct
from pysequoia import Cert

from firebox.domain.errors import Conflict, NotTrusted, UnusablePackage, WrongChecksum
from firebox.packages.download.download import fetch
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.installed.image import MAGIC
from firebox.packages.installed.metadata import check_is, check_package_name, read_info
from firebox.packages.installed.preparation import describe
from firebox.packages.installed.store import IMAGE, PackageStore
from firebox.packages.publishing.publishing import add_to_index, announced_in
from firebox.packages.repository.repositories import Repositories
from firebox.packages.repository.signatures import trusted_keys, verify_file
from firebox.packages.repository.sources import BUILT, packages_folder
from firebox.settings.settings import Settings

CONTENTS = "bundle.json"
MAX_CONTENTS_BYTES = 32 << 20
MAX_PACKAGES = 10_000

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PIECE_BYTES = 1 << 20


class _Contents(Struct, kw_only=True, forbid_unknown_fields=True):
    """`bundle.json`. entries: with the name of a member as their download."""

    format: Literal[1] = 1
    entries: list[Entry]


async def export_bundle(
    wanted: Sequence[Entry],
    target: Path,
    settings: Settings,
    repositories: Repositories,
    store: PackageStore,
    report: Report = no_report,
) -> list[Entry]:
    """Write packages and everything they need into one file, whole or not at all. Returns what is in it, needed ones first.

    An installed package is taken from where it is installed, if it is there as it was published; else it is fetched.
    Raises: as `Repositories.plan` and `download.fetch`.
    """
    entries: dict[str, Entry] = {}
    for entry in wanted:
        for each in await _with_needed(entry, repositories, store):
            entries.setdefault(each.name, each)
    files: dict[str, Path] = {}
    for number, (name, entry) in enumerate(entries.items()):
        report(Progress(package=name, step="download", done=number, total=len(entries)))
        files[name] = await _file_of(entry, settings, store, report)
    entries = {name: await asyncio.to_thread(_with_sha256, entry, files[name]) for name, entry in entries.items()}
    await asyncio.to_thread(_write, target, entries, files, report)
    return list(entries.values())


async def import_bundle(file: Path, settings: Settings, report: Report = no_report) -> list[Entry]:
    """Check every package of a bundle and announce them in the repository `built`: all of them or none.

    Where keys are trusted on this machine each package needs a good signature by one of those trusted for the repository that
    it came from, or, where none are, by any of them; `allow_unsigned_packages` does without. Returns what was imported, needed
    ones first. Raises: UnusablePackage, WrongChecksum, NotTrusted, Conflict.
    """
    folder = packages_folder(settings) / BUILT
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    place = await asyncio.to_thread(tempfile.mkdtemp, dir=folder, prefix=".importing-")
    try:
        entries = await asyncio.to_thread(_unpack, file, Path(place), settings, report)
        for entry in entries:
            report(Progress(package=entry.name, step="verify"))
            await _check(entry, Path(place, entry.download), settings)
        return await asyncio.to_thread(_take_in, entries, Path(place), folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


async def _with_needed(entry: Entry, repositories: Repositories, store: PackageStore) -> list[Entry]:
    """List a package and what it needs, the needed ones first."""
    if store.get(entry.name) is not None:
        return [each.entry for each in reversed(store.closure(entry.name))]
    return await repositories.plan(entry, [])


async def _file_of(entry: Entry, settings: Settings, store: PackageStore, report: Report) -> Path:
    installed = store.place(entry.name) / IMAGE
    digest = entry.checksums.get("sha256")
    if digest and installed.is_file() and await asyncio.to_thread(_digest, installed) == digest:
        return installed
    return await fetch(entry, packages_folder(settings) / "downloads", settings, report)


def _with_sha256(entry: Entry, file: Path) -> Entry:
    """Describe a package as a bundle does. Its other checksums were compared when it was fetched."""
    with file.open("rb") as opened:
        ending = "squashfs" if opened.read(len(MAGIC)) == MAGIC else "tar.gz"
    return msgspec.structs.replace(entry, checksums={"sha256": _digest(file)}, download=_plain_name(entry, ending))


def _write(target: Path, entries: dict[str, Entry], files: dict[str, Path], report: Report) -> None:
    contents = msgspec.json.format(msgspec.json.encode(_Contents(entries=list(entries.values()))))
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as unfinished:
        try:
            with tarfile.open(fileobj=unfinished, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.addfile(_member(CONTENTS, len(contents)), io.BytesIO(contents))
                for number, (name, entry) in enumerate(entries.items()):
                    report(Progress(package=name, step="install", done=number, total=len(entries), words="copying"))
                    with files[name].open("rb") as opened:
                        tar.addfile(_member(entry.download, files[name].stat().st_size), opened)
            unfinished.flush()
            Path(unfinished.name).chmod(0o644)
            Path(unfinished.name).replace(target)
        except BaseException:
            Path(unfinished.name).unlink(missing_ok=True)
            raise


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    return member


def _unpack(file: Path, place: Path, settings: Settings, report: Report) -> list[Entry]:
    """Write the packages of a bundle into a folder and compare their checksums."""
    try:
        with tarfile.open(file, "r|") as tar:
            entries = _read_contents(file, tar)
            missing = {entry.download: entry for entry in entries}
            while (member := tar.next()) is not None:
                entry = missing.pop(member.name, None)
                content = tar.extractfile(member) if member.isreg() else None
                if entry is None or content is None:
                    raise UnusablePackage(f"{file.name}: {member.name[:100]!r} has no business in a bundle")
                if member.size > settings.max_package_bytes:
                    raise UnusablePackage(
                        f"{entry.name} has {member.size} bytes; max_package_bytes is {settings.max_package_bytes}"
                    )
                report(Progress(package=entry.name, step="unpack", done=len(entries) - len(missing), total=len(entries)))
                _write_member(content, place / entry.download, entry)
    except (tarfile.TarError, EOFError) as error:
        raise UnusablePackage(f"{file.name} is no bundle, or damaged: {error}") from None
    for entry in missing.values():
        raise UnusablePackage(f"{file.name}: {entry.name} is not in it")
    return entries


def _read_contents(file: Path, tar: tarfile.TarFile) -> list[Entry]:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.isreg() else None
    if member is None or content is None or member.name != CONTENTS or member.size > MAX_CONTENTS_BYTES:
        raise UnusablePackage(f"{file.name} is no bundle", hint="`firebox packages export` writes one")
    try:
        entries = msgspec.json.decode(content.read(), type=_Contents).entries
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusablePackage(f"{file.name}: {CONTENTS} cannot be read: {error}") from None
    for entry in entries:
        check_package_name(entry.language, entry.version)
        if set(entry.checksums) != {"sha256"} or not _SHA256.fullmatch(entry.checksums["sha256"]):
            raise UnusablePackage(f"{file.name}: {entry.name} has no checksum that can be compared")
        if entry.repository and not _REPOSITORY.fullmatch(entry.repository):
            raise UnusablePackage(
                f"{file.name}: {entry.name} comes from {entry.repository[:100]!r}, which is no repository's name"
            )
        if entry.download not in {_plain_name(entry, ending) for ending in ("squashfs", "tar.gz")}:
            raise UnusablePackage(f"{file.name}: {entry.name} is in a file of the name {entry.download[:100]!r}")
    if len({entry.download for entry in entries}) != len(entries) or not 0 < len(entries) <= MAX_PACKAGES:
        raise UnusablePackage(f"{file.name} holds a package twice, none, or more than {MAX_PACKAGES}")
    return entries


def _plain_name(entry: Entry, ending: str) -> str:
    return quote("-".join(filter(None, [entry.name, entry.architecture])), safe="+") + "." + ending


def _write_member(content: IO[bytes], target: Path, entry: Entry) -> None:
    digest = hashlib.sha256()
    with target.open("xb") as opened:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
            opened.write(piece)
    if digest.hexdigest() != entry.checksums["sha256"]:
        raise WrongChecksum(f"{entry.name} in the bundle is not what its contents say")


async def _check(entry: Entry, file: Path, settings: Settings) -> None:
    """Check signature and description of a package. Raises: NotTrusted, UnusablePackage."""
    keys = _keys(entry, settings)
    if keys and not (settings.allow_unsigned_packages and not entry.signature):
        try:
            await asyncio.to_thread(verify_file, file, signature=entry.signature.encode(), keys=keys, what=entry.name)
        except NotTrusted as error:
            error.hint = f"{error.hint}; trust its key, or set allow_unsigned_packages".lstrip("; ")
            raise
    found = await describe(file, settings.max_package_bytes)
    named = msgspec.json.encode({"language": found.language, "version": found.version, "dependencies": found.dependencies})
    check_is(read_info(named, entry.name), entry)


def _keys(entry: Entry, settings: Settings) -> list[Cert]:
    if entry.repository and (keys := trusted_keys(settings, entry.repository)):
        return keys
    folder = settings.data_dir / settings.trusted_keys_dir
    return [key for file in sorted(folder.glob("*.asc")) for key in trusted_keys(settings, file.stem)]


def _take_in(entries: Iterable[Entry], place: Path, folder: Path) -> list[Entry]:
    """Move the packages where they stay, then announce them."""
    entries = list(entries)
    there = {(each.language, each.version, each.architecture): each.checksums.get("sha256") for each in announced_in(folder)}
    for entry in entries:
        known = there.get((entry.language, entry.version, entry.architecture))
        if known is not None and known != entry.checksums["sha256"]:
            raise Conflict(f"{entry.name} is here already, with another content", hint=f"remove it from {folder} first")
    imported: list[Entry] = []
    for entry in entries:
        target = folder / entry.download
        (place / entry.download).chmod(0o644)
        (place / entry.download).replace(target)
        # A file of the machine where it was built is not here.
        build_file = "" if entry.buildfile.startswith("file:") else entry.buildfile
        announced = msgspec.structs.replace(entry, download=quote(target.name), buildfile=build_file, repository="")
        add_to_index(folder, announced)
        imported.append(msgspec.structs.replace(entry, download=target.absolute().as_uri(), repository=BUILT))
    return imported


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
