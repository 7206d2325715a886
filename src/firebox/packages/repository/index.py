"""Parser of repository indexes: `ppman-repo-1` (YAML) or Piston's older line format.

Indexes are untrusted input: invalid entries are skipped with a warning, and the others are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from firebox.domain.errors import RepositoryError
from firebox.packages.entry import Entry
from firebox.packages.repository.index_yaml import InvalidYaml, YamlValue, parse_yaml
from firebox.packages.repository.sources import file_url, path_of_url
from firebox.packages.versions import is_range, is_version

SCHEMA = "ppman-repo-1"
MAX_INDEX_BYTES = 32 << 20
MAX_ENTRIES = 50_000
MAX_DEPENDENCIES = 64
MAX_INTEGER = (1 << 63) - 1

CHECKSUM_DIGITS = {"sha512": 128, "sha256": 64, "sha1": 40, "md5": 32}
"""Supported checksums, strongest first, with their number of hexadecimal digits."""

_Item = TypeVar("_Item")
_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+#.-]{0,63}")
_VERSION_IN_IT = re.compile(r"-\d+\.\d+\.\d+")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KEY = re.compile(r"[0-9A-F]{16,64}")
PREFIX_BYTES = 64 << 10
"""The first entry of a line-format index must start within this prefix."""
_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\n]*)?\r?\n)*+[ \t]*[^,:{}\s]+,[^,\n]+,[0-9A-Fa-f]+[ \t]*,")
"""Start of a line-format index, after blank lines and comments."""
_MAX_LINE_CHARS = 300
_MAX_URL_CHARS = 2048
_MAX_WARNINGS = 100


class Index(Struct, frozen=True, kw_only=True):
    """A parsed index."""

    entries: list[Entry]
    keys: tuple[str, ...] = ()
    """Ids of the signing OpenPGP keys, as declared by the index itself."""
    serial: int | None = None
    """Incremented with every change; None if the index has none."""
    warnings: tuple[str, ...] = ()
    """Warnings about skipped entries."""


class _InvalidEntry(ValueError):
    """An entry is invalid. The message explains why."""


def parse_index(content: bytes, *, repository: str, location: str) -> Index:
    """Parse an index in either format.

    repository: its name in the settings. location: URL of the index (http, https or `file:`). Relative URLs are resolved
    against it, unless the index declares a `baseurl`. Raises: RepositoryError.
    """
    if len(content) > MAX_INDEX_BYTES:
        raise RepositoryError(repository, f"its index is larger than {MAX_INDEX_BYTES >> 20} MiB")
    if _LINE.match(content[:PREFIX_BYTES]):
        return _parse_lines(content, repository, location)
    try:
        document = parse_yaml(content)
    except InvalidYaml as error:
        raise RepositoryError(repository, f"its index cannot be read: {error}") from None
    return _parse_document(document, repository, location)


def is_package_name(text: str) -> bool:
    """Check whether a text is a valid package name. Names become part of file names, so they must stay unambiguous.

    A name must not contain a version: `a-1.0.0` at `2.0.0` would collide with `a` at `1.0.0-2.0.0`.
    """
    return bool(_LANGUAGE.fullmatch(text)) and ".." not in text and not _VERSION_IN_IT.search(text)


def _parse_lines(content: bytes, repository: str, location: str) -> Index:
    """Parse `language,version,sha256,download-url` lines. Source: Piston, "repo/mkindex.sh"."""
    lines = content.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n")
    entries = [(number, line) for number, line in enumerate(map(str.strip, lines), 1) if line and not line.startswith("#")]
    found, warnings = _parse_entries(repository, "line", entries, lambda line: _parse_line(line, repository, location))
    return Index(entries=found, warnings=warnings)


def _parse_line(line: str, repository: str, location: str) -> Entry:
    parts = [part.strip() for part in line.split(",", 3)]
    if len(parts) != 4:
        raise _InvalidEntry("expected language,version,sha256,download-url")
    language, version, sha256, download = parts
    return Entry(
        language=_package_name(language),
        version=_checked(version, is_version, "version"),
        checksums=_checksums({"sha256": sha256}),
        download=_address(download, location=location, base=location),
        repository=repository,
    )


def _parse_document(document: YamlValue, repository: str, location: str) -> Index:
    if not isinstance(document, dict):
        raise RepositoryError(repository, "its index is neither a YAML mapping nor a list of lines")
    if document.get("schema") != SCHEMA:
        raise RepositoryError(repository, f"its index has schema {_quoted(document.get('schema'))}; supported: {SCHEMA}")
    document = _without_nulls(document)
    packages = document.get("packages", [])
    if not isinstance(packages, list):
        raise RepositoryError(repository, "packages is not a list in the index")
    try:
        base = _base(document["baseurl"], location) if "baseurl" in document else location
        serial = _number(document["serial"], "serial") if "serial" in document else None
        keys = _keys(document.get("keys", []))
    except _InvalidEntry as error:
        raise RepositoryError(repository, f"its index is invalid: {error}") from None
    entries = list(enumerate(packages, 1))
    found, warnings = _parse_entries(repository, "package", entries, lambda one: _parse_package(one, repository, location, base))
    return Index(entries=found, keys=keys, serial=serial, warnings=warnings)


def _parse_package(package: YamlValue, repository: str, location: str, base: str) -> Entry:
    if not isinstance(package, dict):
        raise _InvalidEntry("not a mapping")
    package = _without_nulls(package)
    buildfile = _text(package, "buildfile", _MAX_URL_CHARS)
    return Entry(
        language=_package_name(package.get("language")),
        version=_checked(package.get("version"), is_version, "version"),
        author=_text(package, "author"),
        checksums=_checksums(package.get("checksums", {})),
        dependencies=_dependencies(package.get("dependencies", {})),
        size_bytes=_number(package.get("size", "0"), "size"),
        buildfile=_address(buildfile, location=location, base=base) if buildfile else "",
        download=_address(_text(package, "download", _MAX_URL_CHARS), location=location, base=base),
        signature=_signature(package.get("signature", "")),
        architecture=_architecture(package["architecture"]) if "architecture" in package else "",
        repository=repository,
    )


def _without_nulls(table: dict[str, YamlValue]) -> dict[str, YamlValue]:
    return {key: value for key, value in table.items() if value is not None}


def _parse_entries(
    repository: str, kind: str, items: Sequence[tuple[int, _Item]], read: Callable[[_Item], Entry]
) -> tuple[list[Entry], tuple[str, ...]]:
    """Parse the valid entries. A version announced twice with different content is dropped altogether."""
    if len(items) > MAX_ENTRIES:
        raise RepositoryError(repository, f"its index has more than {MAX_ENTRIES} packages")
    found: dict[tuple[str, str, str], Entry] = {}
    duplicates: set[tuple[str, str, str]] = set()
    warnings: list[str] = []
    for number, item in items:
        try:
            entry = read(item)
        except _InvalidEntry as error:
            warnings.append(f"{kind} {number}: {error}")
            continue
        key = (entry.language.lower(), entry.version, entry.architecture)
        if found.setdefault(key, entry) != entry and key not in duplicates:
            duplicates.add(key)
            warnings.append(f"{kind} {number}: {entry.name} is announced twice with different content")
    if len(warnings) > _MAX_WARNINGS:
        warnings[_MAX_WARNINGS:] = [f"and {len(warnings) - _MAX_WARNINGS} more"]
    return [entry for key, entry in found.items() if key not in duplicates], tuple(warnings)


def _checked(value: YamlValue, is_valid: Callable[[str], object], what: str) -> str:
    if not isinstance(value, str) or not is_valid(value):
        raise _InvalidEntry(f"{_quoted(value)} is not a valid {what}")
    return value


def _package_name(value: YamlValue) -> str:
    return _checked(value, is_package_name, "package name")


def _architecture(value: YamlValue) -> str:
    return _checked(value, _ARCHITECTURE.fullmatch, "architecture")


def _text(package: dict[str, YamlValue], key: str, max_chars: int = _MAX_LINE_CHARS) -> str:
    value = package.get(key, "")
    if not isinstance(value, str) or len(value) > max_chars or not value.isprintable():
        raise _InvalidEntry(f"{key} is not a single line of at most {max_chars} characters")
    return value


def _signature(value: YamlValue) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.replace("\n", "").replace("\r", "").isprintable():
        raise _InvalidEntry("signature is not armored text")
    return value


def _number(value: YamlValue, key: str) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,19}", value) or int(value) > MAX_INTEGER:
        raise _InvalidEntry(f"{key} is {_quoted(value)}, not an integer")
    return int(value)


def _checksums(value: YamlValue) -> dict[str, str]:
    """Parse the supported checksums and ignore the others."""
    if not isinstance(value, dict):
        raise _InvalidEntry("checksums is not a mapping")
    found: dict[str, str] = {}
    for name, digits in CHECKSUM_DIGITS.items():
        digest = value.get(name)
        if digest is None:
            continue
        if not isinstance(digest, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", digest):
            raise _InvalidEntry(f"{name} is not {digits} hexadecimal digits")
        found[name] = digest.lower()
    return found


def _dependencies(value: YamlValue) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_DEPENDENCIES:
        raise _InvalidEntry(f"dependencies is not a mapping of at most {MAX_DEPENDENCIES} entries")
    return {_package_name(name): _checked(wanted, is_range, "version range") for name, wanted in value.items()}


def _keys(value: YamlValue) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_DEPENDENCIES:
        raise _InvalidEntry("keys is not a list")
    found: list[str] = []
    for each in value:
        key = re.sub(r"\s", "", each).upper().removeprefix("0X") if isinstance(each, str) else ""
        if not _KEY.fullmatch(key):
            raise _InvalidEntry(f"{_quoted(each)} is not a key id")
        found.append(key)
    return tuple(found)


def _base(value: YamlValue, location: str) -> str:
    """Return the base URL for relative URLs. It is a folder, so a missing trailing slash is added."""
    if not isinstance(value, str):
        raise _InvalidEntry("baseurl is not a string")
    return _address(value, location=location, base=location).removesuffix("/") + "/"


def _address(text: str, *, location: str, base: str) -> str:
    """Resolve a URL of the index and reject forbidden targets.

    An index from the network may only refer to http and https URLs. A local index may also refer to local files: those below
    its own folder, or those given by absolute path.
    """
    if not text or len(text) > _MAX_URL_CHARS or not text.isprintable() or " " in text or "\\" in text:
        raise _InvalidEntry(f"{_quoted(text)} is not a valid URL")
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
            return _file_address(text, joined=joined, location=location)
    except ValueError:
        raise _InvalidEntry(f"{_quoted(text)} is not a valid URL") from None
    raise _InvalidEntry(f"{_quoted(text)} is not allowed in this index")


def _file_address(text: str, *, joined: str, location: str) -> str:
    path = path_of_url(joined)
    goes_up = ".." in path.parts or ".." in text.split("/")
    if goes_up or not (text.startswith("file:/") or path.is_relative_to(path_of_url(location).parent)):
        raise _InvalidEntry(f"{_quoted(text)} is outside the folder of the index")
    return file_url(path)


def _quoted(value: YamlValue) -> str:
    """Format a value for a message: short, on one line, without terminal control characters."""
    if isinstance(value, str):
        return ascii(value[:60])
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
