"""A folder of packages as a repository: an index over it, signatures, and its copy to where a web server shows it.

`index.yaml` is of the schema `ppman-repo-1`, with our keys `serial` and `architecture`; `index` says the same to Piston's older
clients, a line a package. Packages are named by relative addresses, so the folder may be served from anywhere. A signed folder
has `index.yaml.asc` besides, and a signature with each package in the index.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import yaml
from msgspec import Struct
from pysequoia import SignatureMode, Tsk, sign, sign_file

from firebox.domain.errors import Conflict, InvalidRequest, NotTrusted, UnusablePackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.installed.preparation import describe
from firebox.packages.publishing.build_file import LARGEST_BYTES, address_of_build_file, build_file_of
from firebox.packages.repository.index import SCHEMA, read_index
from firebox.packages.repository.signatures import verify_bytes, verify_file
from firebox.packages.repository.sources import INDEX_NAME, location_of, path_of
from firebox.packages.versions import sort_key

LINES = "index"
SIGNATURE = f"{INDEX_NAME}.asc"
MAX_UNPACKED_BYTES = 64 << 30

_ENDINGS = (".squashfs", ".tar.gz", ".tgz")
_LOCK = ".index.lock"


class _Announced(Struct, frozen=True, kw_only=True):
    """What stands in the index of a folder. Downloads are names of files beside it, quoted."""

    entries: tuple[Entry, ...] = ()
    serial: int = 0
    keys: tuple[str, ...] = ()


def entry_of(file: Path, information: Mapping[str, Any], size_bytes: int) -> Entry:
    """Describe a package file by what its pkg-info.json says. size_bytes: unpacked."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Entry(
        language=information["language"],
        version=information["version"],
        author=information.get("author", ""),
        checksums={"sha256": digest},
        dependencies=dict(information.get("dependencies", {})),
        size_bytes=size_bytes,
        buildfile=address_of_build_file(file),
        download=quote(file.name),
        architecture=information.get("architecture", ""),
    )


def add_to_index(folder: Path, entry: Entry) -> None:
    """Announce a package in a folder's index, in the place of one of the same version. Takes the index's signature away.

    entry: with the name of a file in the folder as its download. Raises: RepositoryError when the index cannot be read.
    """
    with _alone(folder):
        announced = _read(folder)
        kept = [each for each in announced.entries if _key(each) != _key(entry)]
        _write(folder, _Announced(entries=(*kept, entry), serial=announced.serial + 1))


def announce_file(folder: Path, file: Path) -> None:
    """Announce a package file of a folder in its index, unless it is announced. Raises: UnusablePackage, RepositoryError."""
    if any(unquote(entry.download) == file.name for entry in _read(folder).entries):
        return
    add_to_index(folder, _described(file))


def write_index(folder: Path, report: Report = no_report) -> list[Entry]:
    """Write the index of a folder over every package file in it: squashfs images and .tar.gz archives.

    A signature that the index had for the very same file stays; the index's own does not. Returns the entries, their downloads
    as `file:` URLs. Raises: UnusablePackage, Conflict when two files are one package.
    """
    with _alone(folder):
        announced = _read(folder)
        known = {each.checksums.get("sha256", ""): each for each in announced.entries}
        files = sorted(file for file in folder.iterdir() if file.name.endswith(_ENDINGS) and not file.name.startswith("."))
        entries: dict[tuple[str, str, str], Entry] = {}
        for number, file in enumerate(files):
            report(Progress(package=file.name, step="index", done=number, total=len(files)))
            entry = _described(file)
            same = known.get(entry.checksums["sha256"])
            if same:
                entry = msgspec.structs.replace(entry, signature=same.signature, buildfile=same.buildfile or entry.buildfile)
            if _key(entry) in entries:
                raise Conflict(f"{unquote(entries[_key(entry)].download)} and {file.name} are both {entry.name}")
            entries[_key(entry)] = entry
        _write(folder, _Announced(entries=tuple(entries.values()), serial=announced.serial + 1))
    return _placed(entries.values(), folder)


def announced_in(folder: Path) -> list[Entry]:
    """List what a folder's index announces. Raises: RepositoryError when it cannot be read."""
    return _placed(_read(folder).entries, folder)


def sign_folder(folder: Path, key: Path, report: Report = no_report) -> None:
    """Sign every package of a folder and its index with an OpenPGP key. key: a file with a secret key without a password.

    A package that this key has signed already is not signed again. Raises: InvalidRequest for a file that is no such key;
    NotTrusted when a package is not the one that the index announces.
    """
    secret = _read_key(key)
    with _alone(folder):
        announced = _read(folder)
        entries: list[Entry] = []
        for number, entry in enumerate(announced.entries):
            report(Progress(package=entry.name, step="verify", done=number, total=len(announced.entries), words="signing"))
            entries.append(msgspec.structs.replace(entry, signature=_signature(folder, entry, secret)))
        fingerprint = secret.extract_certificate().fingerprint.upper()
        _write(folder, _Announced(entries=tuple(entries), serial=announced.serial + 1, keys=(fingerprint,)), secret)


def publish(folder: Path, target: Path, key: Path | None = None, report: Report = no_report) -> list[Entry]:
    """Put a folder of packages where a web server serves it: index, signatures, packages first and the index last.

    Whoever fetches meanwhile finds every package that the index of that moment names. Packages that the target announced before
    stay as files, and are announced no more. Returns what is announced, downloads as `file:` URLs of the target.
    Raises: Conflict when the target has another content of a version already: a version is final.
    """
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() == folder.resolve():
        raise InvalidRequest("the folder is published to itself", where="TARGET")
    write_index(folder, report)
    with ExitStack() as stack:
        for place in sorted({folder.resolve(), target.resolve()}):
            stack.enter_context(_alone(place))
        ours, theirs = _read(folder), _read(target)
        _check_final(ours.entries, theirs.entries)
        if ours.serial <= theirs.serial:
            _write(folder, msgspec.structs.replace(ours, serial=theirs.serial + 1))
    if key is not None:
        sign_folder(folder, key, report)
    with _alone(folder), _alone(target):
        ours = _read(folder)
        for number, entry in enumerate(ours.entries):
            report(Progress(package=entry.name, step="install", done=number, total=len(ours.entries), words="copying"))
            _copy(folder / unquote(entry.download), target, entry)
            build_file = build_file_of(folder / unquote(entry.download))
            if unquote(entry.buildfile) == build_file.name and build_file.stat().st_size <= LARGEST_BYTES:
                _replace(target / build_file.name, build_file.read_bytes())
        # The signature comes first: an index without one would be refused, an older index with it is tried again.
        if key is None:
            (target / SIGNATURE).unlink(missing_ok=True)
        for name in (LINES, SIGNATURE, INDEX_NAME):
            if (folder / name).is_file():
                _replace(target / name, (folder / name).read_bytes())
    return _placed(ours.entries, target)


def placed(entry: Entry, folder: Path) -> Entry:
    """Give an entry of a folder's index whose files can be found from anywhere on this machine."""
    build_file = entry.buildfile
    if build_file and "://" not in build_file:
        build_file = (folder.absolute() / unquote(build_file)).as_uri()
    download = (folder.absolute() / unquote(entry.download)).as_uri()
    return msgspec.structs.replace(entry, download=download, buildfile=build_file)


def _placed(entries: Iterable[Entry], folder: Path) -> list[Entry]:
    return [placed(each, folder) for each in entries]


def _described(file: Path) -> Entry:
    """Describe a package file by what it says of itself. Raises: UnusablePackage."""
    entry = asyncio.run(describe(file.absolute(), MAX_UNPACKED_BYTES))
    return msgspec.structs.replace(entry, download=quote(file.name), buildfile=address_of_build_file(file))


def _key(entry: Entry) -> tuple[str, str, str]:
    return entry.language.lower(), entry.version, entry.architecture


def _check_final(ours: Sequence[Entry], theirs: Sequence[Entry]) -> None:
    published = {_key(entry): entry for entry in theirs}
    for entry in ours:
        there = published.get(_key(entry))
        if there is not None and there.checksums != entry.checksums:
            raise Conflict(
                f"{entry.name} is published already, with another content",
                hint="a version is final: who installed it would be refused; give the changed package another name or version",
            )


def _copy(file: Path, target: Path, entry: Entry) -> None:
    """Copy a package to where it is served, whole or not at all, unless it is there."""
    there = target / file.name
    if there.is_file() and there.stat().st_size == file.stat().st_size and _digest(there) == entry.checksums.get("sha256"):
        return
    with tempfile.NamedTemporaryFile(dir=target, prefix=".publishing-", delete=False) as unfinished:
        try:
            with file.open("rb") as opened:
                shutil.copyfileobj(opened, unfinished, 1 << 20)
            unfinished.flush()
            os.fchmod(unfinished.fileno(), 0o644)
            if _digest(Path(unfinished.name)) != entry.checksums.get("sha256"):
                raise UnusablePackage(f"{file} changed while it was copied")
            Path(unfinished.name).replace(there)
        except BaseException:
            Path(unfinished.name).unlink(missing_ok=True)
            raise


def _signature(folder: Path, entry: Entry, secret: Tsk) -> str:
    """Give the signature of a package by a key: the one it has, or a new one."""
    file = folder / unquote(entry.download)
    if _digest(file) != entry.checksums.get("sha256"):
        raise NotTrusted(f"{file} is not what the index announces", hint="write the index first")
    certificate = secret.extract_certificate()
    if entry.signature:
        try:
            verify_file(file, signature=entry.signature.encode(), keys=[certificate], what=entry.name)
        except NotTrusted:
            pass  # by another key
        else:
            return entry.signature
    with tempfile.TemporaryDirectory(prefix="firebox-sign-") as place:
        made = Path(place, "signature")
        sign_file(secret.signer(), file, made, mode=SignatureMode.DETACHED)
        signature = made.read_bytes()
    verify_file(file, signature=signature, keys=[certificate], what=entry.name)
    return signature.decode()


def _read_key(file: Path) -> Tsk:
    """Read a secret key. Raises: InvalidRequest."""
    try:
        key = Tsk.from_bytes(file.read_bytes())
        key.signer()
    except OSError as error:
        raise InvalidRequest(f"the key cannot be read: {error}", where="--key") from None
    except (RuntimeError, ValueError):  # the library's own words are a backtrace
        hint = "a file with a secret key that can sign and has no password"
        raise InvalidRequest(f"{file} is no OpenPGP key to sign with", where="--key", hint=hint) from None
    return key


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(folder: Path) -> _Announced:
    """Read a folder's index; nothing where there is none. Raises: RepositoryError."""
    file = folder / INDEX_NAME
    if not file.is_file():
        return _Announced()
    index = read_index(file.read_bytes(), repository=str(folder), location=location_of(file))
    entries = [
        msgspec.structs.replace(
            entry, download=quote(path_of(entry.download).name), buildfile=_relative(entry.buildfile), repository=""
        )
        for entry in index.entries
    ]
    return _Announced(entries=tuple(entries), serial=index.serial or 0, keys=index.keys)


def _relative(address: str) -> str:
    """Name a file beside the index by its name alone; what is elsewhere stays as it is."""
    return quote(path_of(address).name) if address.startswith("file:") else address


def _write(folder: Path, announced: _Announced, secret: Tsk | None = None) -> None:
    entries = sorted(announced.entries, key=lambda each: (each.language, sort_key(each.version), each.architecture))
    document: dict[str, Any] = {"schema": SCHEMA, "serial": announced.serial}
    document |= {"keys": list(announced.keys)} if announced.keys else {}
    document["packages"] = [_table(entry) for entry in entries]
    content = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000).encode()
    lines = [f"{each.language},{each.version},{each.checksums['sha256']},{each.download}\n" for each in entries]
    (folder / SIGNATURE).unlink(missing_ok=True)
    _replace(folder / INDEX_NAME, content)
    _replace(folder / LINES, "".join(lines).encode())
    if secret is not None:
        signature = sign(secret.signer(), content, mode=SignatureMode.DETACHED)
        verify_bytes(content, signature=signature, keys=[secret.extract_certificate()], what="the index")
        _replace(folder / SIGNATURE, signature)


def _table(entry: Entry) -> dict[str, Any]:
    table: dict[str, Any] = {
        "author": entry.author,
        "language": entry.language,
        "version": entry.version,
        "architecture": entry.architecture,
        "checksums": dict(entry.checksums),
        "dependencies": dict(entry.dependencies),
        "size": entry.size_bytes,
        "buildfile": entry.buildfile,
        "download": entry.download,
        "signature": entry.signature,
    }
    return {key: value for key, value in table.items() if value}


def _replace(file: Path, content: bytes) -> None:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.chmod(0o644)
    unfinished.replace(file)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Let one process at a time change a folder's index."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
