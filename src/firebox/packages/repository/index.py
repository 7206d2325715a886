"""Parser of repository indexes: `ppman-repo-1` (YAML) or Piston's older line format.

Indexes are untrusted input: invalid entries are skipped with a warning, and the others are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from firebox.domain.errors import RepositoryError
from firebox.packages.entry import Entry
from firebox.packages.repository.index_yaml import Plain, RefusedYaml, read_yaml
from firebox.packages.repository.sources import location_of, path_of
from firebox.packages.versions import is_range, is_version

SCHEMA = "ppman-repo-1"
MOST_BYTES = 32 << 20
MOST_ENTRIES = 50_000
MOST_DEPENDENCIES = 64
LARGEST_NUMBER = (1 << 63) - 1

CHECKSUM_DIGITS = {"sha512": 128, "sha256": 64, "sha1": 40, "md5": 32}
"""Supported checksums, strongest first, with their number of hexadecimal digits."""

_Thing = TypeVar("_Thing")
_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+#.-]{0,63}")
_VERSION_IN_IT = re.compile(r"-\d+\.\d+\.\d+")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KEY = re.compile(r"[0-9A-F]{16,64}")
BEGINNING_BYTES = 64 << 10
"""The first entry of a line-format index must start within this prefix."""
_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\n]*)?\r?\n)*+[ \t]*[^,:{}\s]+,[^,\n]+,[0-9A-Fa-f]+[ \t]*,")
"""Start of a line-format index, after blank lines and comments."""
_LONGEST_WORDS = 300
_LONGEST_URL = 2048
_MOST_TROUBLES = 100


class Index(Struct, frozen=True, kw_only=True):
    """A parsed index."""

    entries: list[Entry]
    form: Literal["ppman-repo-1", "lines"]
    keys: tuple[str, ...] = ()
    """Ids of the signing OpenPGP keys, as declared by the index itself."""
    serial: int | None = None
    """Incremented with every change; None if the index has none."""
    troubles: tuple[str, ...] = ()
    """Warnings about skipped entries."""


class _Unreadable(ValueError):
    """An entry is invalid. The message explains why."""


def read_index(content: bytes, *, repository: str, location: str) -> Index:
    """Parse an index in either format.

    repository: its name in the settings. location: URL of the index (http, https or `file:`). Relative URLs are resolved
    against it, unless the index declares a `baseurl`.
    Raises: RepositoryError.
    """
    if len(content) > MOST_BYTES:
        raise RepositoryError(repository, f"its index is larger than {MOST_BYTES >> 20} MiB")
    if _LINE.match(content[:BEGINNING_BYTES]):
        return _read_lines(content, repository, location)
    try:
        document = read_yaml(content)
    except RefusedYaml as error:
        raise RepositoryError(repository, f"its index cannot be read: {error}") from None
    return _read_document(document, repository, location)


def is_language(text: str) -> bool:
    """Check whether a text is a valid package name. Names become part of file names, so they must stay unambiguous.

    A name must not contain a version: `a-1.0.0` at `2.0.0` would collide with `a` at `1.0.0-2.0.0`.
    """
    return bool(_LANGUAGE.fullmatch(text)) and ".." not in text and not _VERSION_IN_IT.search(text)


def _read_lines(content: bytes, repository: str, location: str) -> Index:
    """Parse `language,version,sha256,download-url` lines. Source: Piston, "repo/mkindex.sh"."""
    lines = content.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    entries = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    _count(len(entries), repository)
    found, troubles = _read_each("line", entries, lambda line: _line_entry(line, repository, location))
    return Index(entries=found, form="lines", troubles=troubles)


def _line_entry(line: str, repository: str, location: str) -> Entry:
    parts = [part.strip() for part in line.split(",", 3)]
    if len(parts) != 4:
        raise _Unreadable("expected language,version,sha256,download-url")
    language, version, sha256, download = parts
    return Entry(
        language=_language(language),
        version=_version(version),
        checksums=_checksums({"sha256": sha256}),
        download=_address(download, location, location),
        repository=repository,
    )


def _read_document(document: Plain, repository: str, location: str) -> Index:
    if not isinstance(document, dict):
        raise RepositoryError(repository, "its index is neither a YAML mapping nor a list of lines")
    if document.get("schema") != SCHEMA:
        raise RepositoryError(repository, f"its index has schema {_shown(document.get('schema'))}; supported: {SCHEMA}")
    packages = document.get("packages")
    if packages is None:
        packages = []
    if not isinstance(packages, list):
        raise RepositoryError(repository, "packages is not a list in the index")
    try:
        base = _base(document.get("baseurl"), location)
        serial = None if document.get("serial") is None else _number(document["serial"], "serial")
        keys = _keys(document.get("keys"))
    except _Unreadable as error:
        raise RepositoryError(repository, f"its index is invalid: {error}") from None
    _count(len(packages), repository)
    entries = list(enumerate(packages, 1))
    found, troubles = _read_each("package", entries, lambda package: _package_entry(package, repository, location, base))
    return Index(entries=found, form="ppman-repo-1", keys=keys, serial=serial, troubles=troubles)


def _package_entry(package: Plain, repository: str, location: str, base: str) -> Entry:
    if not isinstance(package, dict):
        raise _Unreadable("not a mapping")
    buildfile = _text(package, "buildfile", _LONGEST_URL)
    return Entry(
        language=_language(package.get("language")),
        version=_version(package.get("version")),
        author=_text(package, "author"),
        checksums=_checksums(package.get("checksums")),
        dependencies=_dependencies(package.get("dependencies")),
        size_bytes=0 if package.get("size") is None else _number(package["size"], "size"),
        buildfile=_address(buildfile, location, base) if buildfile else "",
        download=_address(_text(package, "download", _LONGEST_URL), location, base),
        signature=_signature(package.get("signature")),
        architecture=_architecture(package.get("architecture")),
        repository=repository,
    )


def _read_each(
    kind: str, things: Iterable[tuple[int, _Thing]], read: Callable[[_Thing], Entry]
) -> tuple[list[Entry], tuple[str, ...]]:
    """Parse the valid entries. A version announced twice with different content is dropped altogether."""
    found: dict[tuple[str, str, str], Entry] = {}
    twice: set[tuple[str, str, str]] = set()
    troubles: list[str] = []
    for number, thing in things:
        try:
            entry = read(thing)
        except _Unreadable as error:
            troubles.append(f"{kind} {number}: {error}")
            continue
        key = (entry.language.lower(), entry.version, entry.architecture)
        if found.setdefault(key, entry) != entry and key not in twice:
            twice.add(key)
            troubles.append(f"{kind} {number}: {entry.name} is announced twice with different content")
    if len(troubles) > _MOST_TROUBLES:
        troubles[_MOST_TROUBLES:] = [f"and {len(troubles) - _MOST_TROUBLES} more"]
    return [entry for key, entry in found.items() if key not in twice], tuple(troubles)


def _count(entries: int, repository: str) -> None:
    if entries > MOST_ENTRIES:
        raise RepositoryError(repository, f"its index has more than {MOST_ENTRIES} packages")


def _language(value: Plain) -> str:
    if not isinstance(value, str) or not is_language(value):
        raise _Unreadable(f"{_shown(value)} is not a valid package name")
    return value


def _version(value: Plain) -> str:
    if not isinstance(value, str) or not is_version(value):
        raise _Unreadable(f"{_shown(value)} is not a valid version")
    return value


def _architecture(value: Plain) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _ARCHITECTURE.fullmatch(value):
        raise _Unreadable(f"{_shown(value)} is not a valid architecture")
    return value


def _text(package: dict[str, Plain], key: str, longest: int = _LONGEST_WORDS) -> str:
    value = package.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise _Unreadable(f"{key} is not a single line of at most {longest} characters")
    return value


def _signature(value: Plain) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isascii() or not value.replace("\n", "").replace("\r", "").isprintable():
        raise _Unreadable("signature is not armored text")
    return value


def _number(value: Plain, key: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,19}", value) or int(value) > LARGEST_NUMBER:
        raise _Unreadable(f"{key} is {_shown(value)}, not an integer")
    return int(value)


def _checksums(value: Plain) -> dict[str, str]:
    """Parse the supported checksums and ignore the others."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Unreadable("checksums is not a mapping")
    found: dict[str, str] = {}
    for name, digits in CHECKSUM_DIGITS.items():
        digest = value.get(name)
        if digest is None:
            continue
        if not isinstance(digest, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", digest):
            raise _Unreadable(f"{name} is not {digits} hexadecimal digits")
        found[name] = digest.lower()
    return found


def _dependencies(value: Plain) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MOST_DEPENDENCIES:
        raise _Unreadable(f"dependencies is not a mapping of at most {MOST_DEPENDENCIES} entries")
    found: dict[str, str] = {}
    for name, version_range in value.items():
        if not isinstance(version_range, str) or not is_range(version_range):
            raise _Unreadable(f"{_shown(version_range)} is not a valid version range")
        found[_language(name)] = version_range
    return found


def _keys(value: Plain) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_DEPENDENCIES:
        raise _Unreadable("keys is not a list")
    found: list[str] = []
    for each in value:
        key = re.sub(r"\s", "", each).upper().removeprefix("0X") if isinstance(each, str) else ""
        if not _KEY.fullmatch(key):
            raise _Unreadable(f"{_shown(each)} is not a key id")
        found.append(key)
    return tuple(found)


def _base(value: Plain, location: str) -> str:
    """Return the base URL for relative URLs. It is a folder, so a missing trailing slash is added."""
    if value is None:
        return location
    if not isinstance(value, str):
        raise _Unreadable("baseurl is not a string")
    base = _address(value, location, location)
    return base if base.endswith("/") else base + "/"


def _address(text: str, location: str, base: str) -> str:
    """Resolve a URL of the index and reject forbidden targets.

    An index from the network may only refer to http and https URLs. A local index may also refer to local files: those below
    its own folder, or those given by absolute path.
    """
    if not text or len(text) > _LONGEST_URL or not text.isprintable() or " " in text or "\\" in text:
        raise _Unreadable(f"{_shown(text)} is not a valid URL")
    try:
        if location.startswith("file:") and text.startswith("/"):
            text = "file://" + text
        joined = urljoin(base, text)
        parts = urlsplit(joined)
        if parts.scheme in {"http", "https"}:
            _ = parts.port  # raises ValueError if invalid
            if parts.hostname and parts.username is None and parts.password is None:
                return joined
            raise ValueError(joined)
        if parts.scheme == "file" and location.startswith("file:"):
            return _file_address(text, joined, location)
    except ValueError:
        raise _Unreadable(f"{_shown(text)} is not a valid URL") from None
    raise _Unreadable(f"{_shown(text)} is not allowed in this index")


def _file_address(text: str, joined: str, location: str) -> str:
    path = path_of(joined)
    if ".." in path.parts or ".." in text.split("/"):
        raise _Unreadable(f"{_shown(text)} is outside the folder of the index")
    if not text.startswith("file:/") and not path.is_relative_to(path_of(location).parent):
        raise _Unreadable(f"{_shown(text)} is outside the folder of the index")
    return location_of(path)


def _shown(value: Plain) -> str:
    """Format a value for a message: short, on one line, without terminal control characters."""
    if isinstance(value, str):
        return ascii(value[:60])
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
