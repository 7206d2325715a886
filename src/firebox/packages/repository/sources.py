"""Repository sources: names and index URLs from the settings."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from msgspec import Struct

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings

ALL = "all"
"""The meta-repository that includes every configured one."""
BUILT = "built"
"""The implicit repository of locally built packages."""
INDEX_NAME = "index.yaml"
"""Index file of a repository folder."""

REPOSITORY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALLOWED = "space-separated NAME=URL or NAME=FILE; URLs are http or https; names have lower-case letters, digits, - _ ."


class Source(Struct, frozen=True, kw_only=True):
    """A configured repository."""

    name: str
    location: str
    """Index URL: http, https, or `file:` with an absolute path. Without credentials."""
    username: str = ""
    password: str = ""

    @property
    def on_network(self) -> bool:
        return not self.location.startswith("file:")

    @property
    def path(self) -> Path:
        """Path of a local index; for a folder, its `index.yaml`."""
        path = path_of_url(self.location)
        return path / INDEX_NAME if path.is_dir() else path


def read_sources(settings: Settings) -> list[Source]:
    """Parse the setting `repositories`; `built` is appended if anything was built locally. Raises: SettingsError."""
    found: dict[str, Source] = {}
    for position, word in enumerate(settings.repositories.split()):
        source = _source(word, position, settings)
        if source.name in found:
            raise _invalid(settings, f"duplicate repository name {source.name!r}")
        found[source.name] = source
    built = built_folder(settings) / INDEX_NAME
    if built.is_file():
        found[BUILT] = Source(name=BUILT, location=file_url(built))
    return list(found.values())


def packages_folder(settings: Settings) -> Path:
    """Return the root folder of all package data."""
    return settings.data_dir / "packages"


def built_folder(settings: Settings) -> Path:
    """Return the folder of the repository `built`."""
    return packages_folder(settings) / BUILT


def file_url(path: Path) -> str:
    """Return the `file:` URL of a path."""
    return path.absolute().as_uri()


def path_of_url(location: str) -> Path:
    """Return the path of a `file:` URL. Raises: ValueError if it is not a valid one."""
    parts = urlsplit(location)
    path = Path(unquote(parts.path, errors="surrogateescape"))
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not path.is_absolute() or "\0" in str(path):
        raise ValueError(location)
    return path


def _source(word: str, position: int, settings: Settings) -> Source:
    name, equals, place = word.partition("=")
    if not equals or not REPOSITORY_NAME.fullmatch(name):
        if position:
            raise _invalid(settings, f"{word!r} has no name")
        name, place = "default", word
    if name in {ALL, BUILT}:
        raise _invalid(settings, f"the name {name!r} is reserved")
    scheme = place.partition(":")[0].lower() if "://" in place or place.startswith("file:") else ""
    try:
        if scheme in {"http", "https"}:
            return _network_source(name, place)
        if scheme == "file":
            return Source(name=name, location=file_url(path_of_url(place)))
    except ValueError:
        raise _invalid(settings, f"{name!r} has an invalid URL") from None
    if scheme or not place:
        raise _invalid(settings, f"{name!r} has an unsupported URL")
    return Source(name=name, location=file_url(settings.data_dir / Path(place).expanduser()))


def _network_source(name: str, address: str) -> Source:
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port is not None else ""
    if not parts.hostname or parts.fragment or not address.isprintable():
        raise ValueError(address)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    location = urlunsplit((parts.scheme.lower(), f"{host}{port}", parts.path or "/", parts.query, ""))
    return Source(name=name, location=location, username=unquote(parts.username or ""), password=unquote(parts.password or ""))


def _invalid(settings: Settings, why: str) -> SettingsError:
    return settings.refused("repositories", allowed=_ALLOWED, hint=why)
