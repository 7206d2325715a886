"""Bundles: packages in one tar file for offline machines, with `bundle.json` first.

Imported packages are verified like downloads and added to the repository `built`.
"""

from __future__ import annotations

import asyncio
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
from firebox.files.atomic_write import replacing
from firebox.files.checksum import file_checksum
from firebox.packages.download.download import fetch
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.installed.image import MAGIC
from firebox.packages.installed.metadata import PackageInfo, check_matches, check_package_name
from firebox.packages.installed.preparation import describe
from firebox.packages.installed.store import IMAGE, PackageStore
from firebox.packages.publishing.publishing import add_to_index, list_folder
from firebox.packages.repository.repositories import Repositories
from firebox.packages.repository.signatures import trusted_keys, verify_signature
from firebox.packages.repository.sources import BUILT, REPOSITORY_NAME, built_folder, packages_folder
from firebox.settings.settings import Settings

MANIFEST = "bundle.json"
MAX_MANIFEST_BYTES = 32 << 20
MAX_PACKAGES = 10_000

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Manifest(Struct, kw_only=True, forbid_unknown_fields=True):
    """`bundle.json`. entries: each download is the name of a tar member."""

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
    """Write packages and their dependencies to a bundle, atomically. Return its entries, dependencies first.

    Installed packages are reused if their file is unmodified; the others are downloaded.
    Raises: as `Repositories.plan` and `download.fetch`.
    """
    entries: dict[str, Entry] = {}
    for entry in wanted:
        for each in await _with_dependencies(entry, repositories, store):
            entries.setdefault(each.name, each)
    files: dict[str, Path] = {}
    for number, (name, entry) in enumerate(entries.items()):
        report(Progress(package=name, step="download", done=number, total=len(entries)))
        files[name] = await _file_of(entry, settings, store, report)
    entries = {name: await asyncio.to_thread(_with_sha256, entry, files[name]) for name, entry in entries.items()}
    await asyncio.to_thread(_write, target, entries, files, report)
    return list(entries.values())


async def import_bundle(file: Path, settings: Settings, report: Report = no_report) -> list[Entry]:
    """Verify the packages of a bundle and add them to the repository `built`: all or none.

    If keys are trusted on this machine, each package needs a valid signature by a key trusted for its original repository, or by
    any trusted key if that repository has none; `allow_unsigned_packages` waives this. Return the imported entries, dependencies
    first. Raises: UnusablePackage, WrongChecksum, NotTrusted, Conflict.
    """
    folder = built_folder(settings)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    place = await asyncio.to_thread(tempfile.mkdtemp, dir=folder, prefix=".importing-")
    try:
        entries = await asyncio.to_thread(_unpack, file, Path(place), settings.max_package_bytes, report)
        for entry in entries:
            report(Progress(package=entry.name, step="verify"))
            await _check(entry, Path(place, entry.download), settings)
        return await asyncio.to_thread(_add_to_repository, entries, Path(place), folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)


async def _with_dependencies(entry: Entry, repositories: Repositories, store: PackageStore) -> list[Entry]:
    """List a package and its dependencies, dependencies first."""
    if store.get(entry.name) is not None:
        return [each.entry for each in reversed(store.closure(entry.name))]
    return await repositories.plan(entry, [])


async def _file_of(entry: Entry, settings: Settings, store: PackageStore, report: Report) -> Path:
    installed = store.package_folder(entry.name) / IMAGE
    digest = entry.checksums.get("sha256")
    if digest and installed.is_file() and await asyncio.to_thread(file_checksum, installed) == digest:
        return installed
    return await fetch(entry, packages_folder(settings) / "downloads", settings, report)


def _with_sha256(entry: Entry, file: Path) -> Entry:
    """Convert an entry to its form in a bundle. Other checksums were verified on download."""
    with file.open("rb") as opened:
        ending = "squashfs" if opened.read(len(MAGIC)) == MAGIC else "tar.gz"
    return msgspec.structs.replace(entry, checksums={"sha256": file_checksum(file)}, download=_member_name(entry, ending))


def _write(target: Path, entries: dict[str, Entry], files: dict[str, Path], report: Report) -> None:
    manifest = msgspec.json.format(msgspec.json.encode(_Manifest(entries=list(entries.values()))))
    with replacing(target) as unfinished, tarfile.open(fileobj=unfinished, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
        for number, (name, entry) in enumerate(entries.items()):
            report(Progress(package=name, step="install", done=number, total=len(entries), words="copying"))
            with files[name].open("rb") as opened:
                tar.addfile(_member(entry.download, files[name].stat().st_size), opened)


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    return member


def _unpack(file: Path, place: Path, max_bytes: int, report: Report) -> list[Entry]:
    """Extract the packages of a bundle and verify their checksums."""
    try:
        with tarfile.open(file, "r|") as tar:
            entries = _read_manifest(file, tar)
            missing = {entry.download: entry for entry in entries}
            while (member := tar.next()) is not None:
                entry = missing.pop(member.name, None)
                content = tar.extractfile(member) if member.isreg() else None
                if entry is None or content is None:
                    raise UnusablePackage(f"{file.name}: unexpected file {member.name[:100]!r}")
                if member.size > max_bytes:
                    raise UnusablePackage(f"{entry.name} has {member.size} bytes; max_package_bytes is {max_bytes}")
                report(Progress(package=entry.name, step="unpack", done=len(entries) - len(missing), total=len(entries)))
                _write_member(content, place / entry.download, entry)
    except (tarfile.TarError, EOFError) as error:
        raise UnusablePackage(f"{file.name} is not a valid bundle: {error}") from None
    for entry in missing.values():
        raise UnusablePackage(f"{file.name}: {entry.name} is missing")
    return entries


def _read_manifest(file: Path, tar: tarfile.TarFile) -> list[Entry]:
    member = tar.next()
    content = tar.extractfile(member) if member is not None and member.isreg() else None
    if member is None or content is None or member.name != MANIFEST or member.size > MAX_MANIFEST_BYTES:
        raise UnusablePackage(f"{file.name} is not a bundle", hint="create one with `firebox packages export`")
    try:
        entries = msgspec.json.decode(content.read(), type=_Manifest).entries
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusablePackage(f"{file.name}: {MANIFEST} cannot be read: {error}") from None
    for entry in entries:
        check_package_name(entry.language, entry.version)
        if set(entry.checksums) != {"sha256"} or not _SHA256.fullmatch(entry.checksums["sha256"]):
            raise UnusablePackage(f"{file.name}: {entry.name} has no SHA-256 checksum")
        if entry.repository and not REPOSITORY_NAME.fullmatch(entry.repository):
            raise UnusablePackage(f"{file.name}: {entry.name} has an invalid repository name, {entry.repository[:100]!r}")
        if entry.download not in {_member_name(entry, ending) for ending in ("squashfs", "tar.gz")}:
            raise UnusablePackage(f"{file.name}: {entry.name} has an invalid file name, {entry.download[:100]!r}")
    if len({entry.download for entry in entries}) != len(entries) or not 0 < len(entries) <= MAX_PACKAGES:
        raise UnusablePackage(f"{file.name} must contain 1 to {MAX_PACKAGES} packages, each once")
    return entries


def _member_name(entry: Entry, ending: str) -> str:
    return quote("-".join(filter(None, [entry.name, entry.architecture])), safe="+") + "." + ending


def _write_member(content: IO[bytes], target: Path, entry: Entry) -> None:
    with target.open("xb") as opened:
        shutil.copyfileobj(content, opened, 1 << 20)
    if file_checksum(target) != entry.checksums["sha256"]:
        raise WrongChecksum(f"{entry.name}: its content does not match the checksum in the bundle")


async def _check(entry: Entry, file: Path, settings: Settings) -> None:
    """Verify the signature and metadata of a package. Raises: NotTrusted, UnusablePackage."""
    keys = _keys(entry, settings)
    if keys and not (settings.allow_unsigned_packages and not entry.signature):
        try:
            await asyncio.to_thread(verify_signature, file, signature=entry.signature.encode(), keys=keys, what=entry.name)
        except NotTrusted as error:
            error.hint = f"{error.hint}; trust its key, or set allow_unsigned_packages".lstrip("; ")
            raise
    found = await describe(file, settings.max_package_bytes)
    check_matches(PackageInfo(language=found.language, version=found.version, dependencies=found.dependencies), entry)


def _keys(entry: Entry, settings: Settings) -> list[Cert]:
    if entry.repository and (keys := trusted_keys(settings, entry.repository)):
        return keys
    folder = settings.data_dir / settings.trusted_keys_dir
    return [key for file in sorted(folder.glob("*.asc")) for key in trusted_keys(settings, file.stem)]


def _add_to_repository(entries: Iterable[Entry], place: Path, folder: Path) -> list[Entry]:
    """Move the packages to the repository folder, then announce them."""
    entries = list(entries)
    there = {(each.language, each.version, each.architecture): each.checksums.get("sha256") for each in list_folder(folder)}
    for entry in entries:
        known = there.get((entry.language, entry.version, entry.architecture))
        if known is not None and known != entry.checksums["sha256"]:
            raise Conflict(f"{entry.name} already exists with different content", hint=f"delete it from {folder} first")
    imported: list[Entry] = []
    for entry in entries:
        target = folder / entry.download
        (place / entry.download).chmod(0o644)
        (place / entry.download).replace(target)
        # A local path of the machine that built it is meaningless here.
        build_file = "" if entry.buildfile.startswith("file:") else entry.buildfile
        announced = msgspec.structs.replace(entry, download=quote(target.name), buildfile=build_file, repository="")
        add_to_index(folder, announced)
        imported.append(msgspec.structs.replace(entry, download=target.absolute().as_uri(), repository=BUILT))
    return imported
