"""Registered languages: a name and a version that map to a container image or to our own sandbox."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from firebox.domain.errors import Conflict, InvalidRequest, NotFound
from firebox.runtimes.registry import Registry
from firebox.storage.records import Language, language_id
from firebox.storage.stores import Stores

LATEST = "latest"
"""The version that means the latest one."""
MAX_NAME_CHARACTERS = 100
MAX_IMAGE_CHARACTERS = 255

# fmt: off
COMMON_NAMES = frozenset((
    "assembly", "ats", "bash", "c", "clisp", "clojure", "cobol", "coffeescript", "cpp", "crystal", "csharp", "d",
    "dart", "elixir", "elm", "erlang", "fsharp", "go", "groovy", "guile", "hare", "haskell", "idris", "java",
    "javascript", "julia", "kotlin", "lua", "mercury", "nim", "nix", "ocaml", "pascal", "perl", "php", "python", "raku",
    "ruby", "rust", "sac", "scala", "swift", "typescript", "zig",
))
# fmt: on
"""Names used by clients for languages with another name here ("cpp" for "c++")."""

_NATIVE = "native:"
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]+")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


class Native(Struct, frozen=True):
    """Parsed image `native:LANGUAGE[@RANGE]`: a runtime of this host, in our own sandbox."""

    language: str
    version: str


class Languages:
    """The registered languages; those of this host if none is registered and there is no container engine."""

    def __init__(self, stores: Stores, registry: Registry, *, has_containers: bool = False) -> None:
        self._stores = stores
        self._registry = registry
        self._has_containers = has_containers

    async def all(self) -> list[Language]:
        """Return all languages, ordered by name and version. Raises: PartUnavailable, as all of these."""
        found = await self._stores.languages.all() or self._of_the_host()
        return sorted(found, key=lambda language: (language.name, language.version))

    async def find(self, name: str, version: str) -> Language:
        """Return a language by name and version. Raises: NotFound."""
        found = await self._stores.languages.find(name, version)
        if found is not None:
            return found
        return (await self._matching(lambda each: (each.name, each.version) == (name, version), f"{name} {version}"))[0]

    async def versions(self, name: str) -> list[Language]:
        """Return the versions of a language. Raises: NotFound."""
        return await self._matching(lambda language: language.name == name, name)

    async def get(self, wanted: str) -> Language:
        """Return a language by id. Raises: NotFound."""
        return (await self._matching(lambda language: language.id == wanted, wanted))[0]

    async def put(self, name: str, version: str, *, image: str) -> Language:
        """Register a language, or replace its image. Raises: InvalidRequest, UnknownRuntime for an unknown `native:` runtime."""
        for where, value in (("name", name), ("version", version)):
            if len(value) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(value) or value in {".", ".."}:
                raise InvalidRequest("must be a word of at most 100 characters without spaces and slashes", where=where)
        native = read_native(image)
        if native is not None:
            self._registry.resolve(native.language, native.version)
        elif len(image) > MAX_IMAGE_CHARACTERS or not _IMAGE.fullmatch(image):
            raise InvalidRequest(
                "not the name of a container image", where="image", hint="such as glot/python:latest, or native:python@3.x"
            )
        for other in await self._stores.languages.all():
            if other.id == language_id(name, version) and other.name != name:
                raise Conflict(f"this language would have the same id as {other.name} {other.version}")
        return await self._stores.languages.put(name, version, image=image)

    async def remove(self, wanted: str) -> None:
        """Unregister a language by id. Raises: NotFound, Conflict for one of the host."""
        language = await self.get(wanted)
        if await self._stores.languages.find(language.name, language.version) is None:
            raise Conflict(
                "this language is provided by the host and was not registered",
                hint="once a language is registered, only registered languages are available",
            )
        await self._stores.languages.remove(language.id)

    async def _matching(self, is_wanted: Callable[[Language], bool], name: str) -> list[Language]:
        """Return the languages that are wanted, at least one. Raises: NotFound for `name`."""
        found = [*filter(is_wanted, await self.all())]
        if not found:
            raise NotFound("language", name[:MAX_NAME_CHARACTERS])
        return found

    def _of_the_host(self) -> list[Language]:
        """Return the languages of this host, each at its exact version and at `latest`; none if containers are used."""
        if self._has_containers:
            return []
        found: dict[tuple[str, str], Language] = {}
        for runtime in self._registry.all():
            for name in (runtime.language, *(alias for alias in runtime.aliases if alias in COMMON_NAMES)):
                newest = self._registry.resolve(name)
                for version, exact in ((LATEST, newest.version), (runtime.version, runtime.version)):
                    found.setdefault((name, version), _language(name, version, f"{_NATIVE}{name}@{exact}"))
        return list(found.values())


def read_native(image: str) -> Native | None:
    """Parse the image of a runtime in our own sandbox; None for a container image."""
    if not image.startswith(_NATIVE):
        return None
    language, _, version = image.removeprefix(_NATIVE).partition("@")
    return Native(language, version or "*")


def _language(name: str, version: str, image: str) -> Language:
    start = datetime.fromtimestamp(0, UTC)
    return Language(id=language_id(name, version), name=name, version=version, image=image, created_at=start, modified_at=start)
