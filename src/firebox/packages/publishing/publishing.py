"""Publishing of a folder of packages as a repository: index, signatures, and a copy for a web server.

`index.yaml` has the schema `ppman-repo-1` plus our keys `serial` and `architecture`; `index` lists the same packages in the line
format of older Piston clients. URLs are relative, so the folder can be served from any address. A signed folder also has
`index.yaml.asc`, and a signature for each package in the index. Beside a package may be its build file, a text that documents
how it was built.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import yaml
from pysequoia import SignatureMode, Tsk, sign, sign_file

from firebox.domain.errors import Conflict, InvalidRequest, NotTrusted, UnusablePackage
from firebox.files.atomic_write import replacing, write_atomic
from firebox.files.checksum import file_checksum
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.file_locks import lock_file
from firebox.packages.installed.metadata import PackageInfo
from firebox.packages.installed.preparation import describe, entry_of_info
from firebox.packages.repository.index import SCHEMA, Index, parse_index
from firebox.packages.repository.signatures import verify_signature
from firebox.packages.repository.sources import INDEX_NAME, file_url, path_of_url
from firebox.packages.versions import sort_key

LINES_NAME = "index"
SIGNATURE = f"{INDEX_NAME}.asc"
MAX_UNPACKED_BYTES = 64 << 30
MAX_BUILD_FILE_BYTES = 16 << 20

_INDEX_FIELDS = (
    "author", "language", "version", "architecture", "checksums", "dependencies", "size_bytes", "buildfile", "download",
    "signature",
)  # fmt: skip
_ENDINGS = (".squashfs", ".tar.gz", ".tgz")
_LOCK = ".index.lock"


def entry_of(file: Path, information: Mapping[str, Any], size_bytes: int) -> Entry:
    """Create the entry of a package file for an index beside it, from its pkg-info.json. size_bytes: unpacked."""
    return _beside_index(entry_of_info(msgspec.convert(information, PackageInfo), file, size_bytes), file)


def write_build_file(package: Path, command: str, parts: Mapping[str, str]) -> None:
    """Write the build file of a package. command: the build command; parts: input name -> text."""
    text = [f"# Made by: {command}\n", *(f"\n==> {name} <==\n{part.rstrip()}\n" for name, part in parts.items())]
    write_atomic(_build_file_path(package), "".join(text).encode())


def build_file_url(package: Path) -> str:
    """Return the URL-quoted name of the build file for an index beside it; "" if there is none."""
    file = _build_file_path(package)
    return quote(file.name) if file.is_file() and not file.is_symlink() else ""


def _build_file_path(package: Path) -> Path:
    return package.with_name(package.name.removesuffix(".squashfs") + ".recipe.txt")


def add_to_index(folder: Path, entry: Entry) -> None:
    """Add the entry of a file in a folder to its index, instead of one of the same version. Removes the index's signature."""
    with lock_file(folder / _LOCK):
        announced = _read(folder)
        kept = [each for each in announced.entries if _identity(each) != _identity(entry)]
        _write(folder, [*kept, entry], announced.serial)


def add_file_to_index(folder: Path, file: Path) -> None:
    """Add a package file to its folder's index, unless it is listed. Raises: UnusablePackage, RepositoryError."""
    if any(unquote(entry.download) == file.name for entry in _read(folder).entries):
        return
    add_to_index(folder, _entry_of_file(file))


def write_index(folder: Path, report: Report = no_report) -> list[Entry]:
    """Write the index of a folder for all package files in it: squashfs images and .tar.gz archives.

    Signatures of unchanged files are kept; that of the index is removed. Return the entries, with `file:` URLs as downloads.
    Raises: UnusablePackage; Conflict if two files contain the same package.
    """
    with lock_file(folder / _LOCK):
        announced = _read(folder)
        known = {each.checksums.get("sha256", ""): each for each in announced.entries}
        files = sorted(file for file in folder.iterdir() if file.name.endswith(_ENDINGS) and not file.name.startswith("."))
        entries: dict[tuple[str, str, str], Entry] = {}
        for number, file in enumerate(files):
            report(Progress(package=file.name, step="index", done=number, total=len(files)))
            entry = _entry_of_file(file)
            same = known.get(entry.checksums["sha256"])
            if same:
                entry = msgspec.structs.replace(entry, signature=same.signature, buildfile=same.buildfile or entry.buildfile)
            if _identity(entry) in entries:
                raise Conflict(f"{unquote(entries[_identity(entry)].download)} and {file.name} both contain {entry.name}")
            entries[_identity(entry)] = entry
        _write(folder, entries.values(), announced.serial)
    return [with_absolute_url(each, folder) for each in entries.values()]


def list_folder(folder: Path) -> list[Entry]:
    """List the entries in a folder's index. Raises: RepositoryError if it cannot be read."""
    return [with_absolute_url(each, folder) for each in _read(folder).entries]


def sign_folder(folder: Path, key: Path, report: Report = no_report) -> None:
    """Sign all packages of a folder and its index with OpenPGP. key: file with a secret key without a passphrase.

    Packages already signed by this key are skipped. Raises: InvalidRequest if the key is invalid; NotTrusted if a package differs
    from its index entry.
    """
    secret = _read_key(key)
    with lock_file(folder / _LOCK):
        announced = _read(folder)
        entries: list[Entry] = []
        for number, entry in enumerate(announced.entries):
            report(Progress(package=entry.name, step="verify", done=number, total=len(announced.entries), words="signing"))
            entries.append(msgspec.structs.replace(entry, signature=_signature(folder, entry, secret)))
        _write(folder, entries, announced.serial, secret)


def publish(folder: Path, target: Path, key: Path | None = None, report: Report = no_report) -> list[Entry]:
    """Copy a folder of packages to where a web server serves it: index and sign, copy the packages, then the index.

    Concurrent downloads always find every package of the current index. Packages previously announced in the target stay as files
    but are no longer listed. Return the entries, with `file:` URLs in the target as downloads.
    Raises: Conflict if the target has a version with different content: published versions are final.
    """
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() == folder.resolve():
        raise InvalidRequest("the folder and the target are the same", where="TARGET")
    write_index(folder, report)
    with ExitStack() as stack:
        for place in sorted({folder.resolve(), target.resolve()}):
            stack.enter_context(lock_file(place / _LOCK))
        ours, theirs = _read(folder), _read(target)
        _check_final(ours.entries, theirs.entries)
        if (ours.serial or 0) <= (theirs.serial or 0):
            _write(folder, ours.entries, theirs.serial)
    if key is not None:
        sign_folder(folder, key, report)
    with lock_file(folder / _LOCK), lock_file(target / _LOCK):
        ours = _read(folder)
        for number, entry in enumerate(ours.entries):
            report(Progress(package=entry.name, step="install", done=number, total=len(ours.entries), words="copying"))
            _copy(folder / unquote(entry.download), target, entry)
            build_file = _build_file_path(folder / unquote(entry.download))
            if unquote(entry.buildfile) == build_file.name and build_file.stat().st_size <= MAX_BUILD_FILE_BYTES:
                write_atomic(target / build_file.name, build_file.read_bytes())
        # Signature first: clients reject an index without its signature, but retry an old index with a new signature.
        if key is None:
            (target / SIGNATURE).unlink(missing_ok=True)
        for name in (LINES_NAME, SIGNATURE, INDEX_NAME):
            if (folder / name).is_file():
                write_atomic(target / name, (folder / name).read_bytes())
    return [with_absolute_url(each, target) for each in ours.entries]


def with_absolute_url(entry: Entry, folder: Path) -> Entry:
    """Return an entry of a folder's index with absolute URLs."""
    build_file = entry.buildfile
    if build_file and "://" not in build_file:
        build_file = (folder.absolute() / unquote(build_file)).as_uri()
    download = (folder.absolute() / unquote(entry.download)).as_uri()
    return msgspec.structs.replace(entry, download=download, buildfile=build_file)


def _entry_of_file(file: Path) -> Entry:
    """Create the entry of a package file from its own metadata. Raises: UnusablePackage."""
    return _beside_index(asyncio.run(describe(file.absolute(), MAX_UNPACKED_BYTES)), file)


def _beside_index(entry: Entry, file: Path) -> Entry:
    return msgspec.structs.replace(entry, download=quote(file.name), buildfile=build_file_url(file))


def _identity(entry: Entry) -> tuple[str, str, str]:
    return entry.language.lower(), entry.version, entry.architecture


def _check_final(ours: Sequence[Entry], theirs: Sequence[Entry]) -> None:
    published = {_identity(entry): entry for entry in theirs}
    for entry in ours:
        there = published.get(_identity(entry))
        if there is not None and there.checksums != entry.checksums:
            hint = "published versions are final; give the changed package a new name or version"
            raise Conflict(f"{entry.name} is already published with different content", hint=hint)


def _copy(file: Path, target: Path, entry: Entry) -> None:
    """Copy a package to the target atomically, unless it is already there."""
    there = target / file.name
    if there.is_file() and there.stat().st_size == file.stat().st_size and file_checksum(there) == entry.checksums.get("sha256"):
        return
    with replacing(there) as unfinished, file.open("rb") as opened:
        shutil.copyfileobj(opened, unfinished, 1 << 20)
        unfinished.flush()
        if file_checksum(Path(unfinished.name)) != entry.checksums.get("sha256"):
            raise UnusablePackage(f"{file} changed while it was copied")


def _signature(folder: Path, entry: Entry, secret: Tsk) -> str:
    """Return the signature of a package: the existing one if it is by this key, otherwise a new one."""
    file = folder / unquote(entry.download)
    if file_checksum(file) != entry.checksums.get("sha256"):
        raise NotTrusted(f"{file} differs from the index", hint="run `firebox packages index` first")
    certificate = secret.extract_certificate()
    if entry.signature:
        try:
            verify_signature(file, signature=entry.signature.encode(), keys=[certificate], what=entry.name)
        except NotTrusted:
            pass  # signed by another key
        else:
            return entry.signature
    with tempfile.TemporaryDirectory(prefix="firebox-sign-") as place:
        made = Path(place, "signature")
        sign_file(secret.signer(), file, made, mode=SignatureMode.DETACHED)
        signature = made.read_bytes()
    verify_signature(file, signature=signature, keys=[certificate], what=entry.name)
    return signature.decode()


def _read_key(file: Path) -> Tsk:
    """Read a secret key. Raises: InvalidRequest."""
    try:
        key = Tsk.from_bytes(file.read_bytes())
        key.signer()
    except OSError as error:
        raise InvalidRequest(f"the key cannot be read: {error}", where="--key") from None
    except (RuntimeError, ValueError):  # the library's error message is a backtrace
        hint = "use a secret key that can sign and has no passphrase"
        raise InvalidRequest(f"{file} is not an OpenPGP signing key", where="--key", hint=hint) from None
    return key


def _read(folder: Path) -> Index:
    """Read a folder's index, empty if there is none. Downloads are quoted names of files beside it. Raises: RepositoryError."""
    file = folder / INDEX_NAME
    if not file.is_file():
        return Index(entries=[])
    index = parse_index(file.read_bytes(), repository=str(folder), location=file_url(file))
    entries = [
        msgspec.structs.replace(
            entry, download=quote(path_of_url(entry.download).name), buildfile=_relative_url(entry.buildfile), repository=""
        )
        for entry in index.entries
    ]
    return msgspec.structs.replace(index, entries=entries)


def _relative_url(address: str) -> str:
    """Convert a `file:` URL to the quoted name of a file beside the index; leave other URLs unchanged."""
    return quote(path_of_url(address).name) if address.startswith("file:") else address


def _write(folder: Path, entries: Iterable[Entry], previous: int | None, secret: Tsk | None = None) -> None:
    """Write a folder's index, signed if there is a key. previous: the serial to increment."""
    entries = sorted(entries, key=lambda each: (each.language, sort_key(each.version), each.architecture))
    document: dict[str, Any] = {"schema": SCHEMA, "serial": (previous or 0) + 1}
    document |= {"keys": [secret.extract_certificate().fingerprint.upper()]} if secret is not None else {}
    tables: list[dict[str, Any]] = msgspec.to_builtins(entries)
    document["packages"] = [{name.removesuffix("_bytes"): each[name] for name in _INDEX_FIELDS if each[name]} for each in tables]
    content = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000).encode()
    lines = [f"{each.language},{each.version},{each.checksums['sha256']},{each.download}\n" for each in entries]
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / INDEX_NAME, content)
    write_atomic(folder / LINES_NAME, "".join(lines).encode())
    if secret is not None:
        signature = sign(secret.signer(), content, mode=SignatureMode.DETACHED)
        verify_signature(content, signature=signature, keys=[secret.extract_certificate()], what="the index")
        write_atomic(folder / SIGNATURE, signature)
