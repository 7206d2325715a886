"""The repositories of the settings: their indices kept in step, and found in them what somebody asks for."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
from msgspec import Struct

from firebox.domain.errors import DependencyConflict, NotFound, NotTrusted, PackageError, RepositoryError, UnusablePackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.machine import architecture, fits
from firebox.packages.repository import network, resolve
from firebox.packages.repository.index import MOST_BYTES, Index, read_index
from firebox.packages.repository.repository_state import StateFolder
from firebox.packages.repository.signatures import MOST_SIGNATURE_BYTES, key_file, trusted_keys, verify_bytes
from firebox.packages.repository.sources import ALL, BUILT, Source, packages_folder, sources_of
from firebox.packages.versions import by_repository, newest, preferred, version_words
from firebox.settings.settings import Settings

_NO_SIGNATURE = {403, 404, 410}
"""How servers say that there is no such file."""


class _Fetched(Struct, frozen=True, kw_only=True):
    """An index with its signature, b"" when it has none."""

    content: bytes
    signature: bytes


class _Kept(Struct, frozen=True, kw_only=True):
    """An index in memory, and how the files looked that it comes from."""

    stamp: tuple[object, ...]
    index: Index


class Repositories:
    """What can be installed. Several may be made of the same settings, in several processes."""

    def __init__(self, settings: Settings) -> None:
        """Raises: SettingsError when the setting `repositories` cannot be read."""
        self._settings = settings
        self._kept: dict[str, _Kept] = {}
        sources_of(settings)

    def names(self) -> list[str]:
        """List the repositories in the order of the settings; `built` comes last, when something was built."""
        return [source.name for source in sources_of(self._settings)]

    async def entries(self, name: str = ALL, *, sync: bool = False, report: Report = no_report) -> list[Entry]:
        """List what a repository has, after fetching its index if that was never done. sync: fetch it in any case.

        name: `all` for every repository; a version that several have is then the first one's. One that cannot be read hides
        those after it, as nobody knows which versions are its own; the words about that go to `report`.
        Raises: NotFound; RepositoryError; NotTrusted.
        """
        if name != ALL:
            return list((await self._index(self._source(name), sync=sync, report=report)).entries)
        offers, failure = await self._offers(sync=sync, report=report)
        found = offers.everything()
        if failure is not None and (sync or not found):
            raise failure
        return found

    async def sync(self, name: str = ALL, report: Report = no_report) -> None:
        """Fetch an index again, of `all` every one. Raises: as `entries`; of several failures the first, when all were tried."""
        failure: PackageError | None = None
        for source in sources_of(self._settings) if name == ALL else [self._source(name)]:
            try:
                await self._index(source, sync=True, report=report)
            except PackageError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def find(self, language: str, version_range: str = "*", *, repository: str = ALL) -> Entry:
        """Find the newest version of a package that a range allows and this machine can use.

        In `all` the first repository that has one decides.
        Raises: NotFound; UnusablePackage when there are only some for other machines; RepositoryError; NotTrusted.
        """
        failure: PackageError | None = None
        if repository == ALL:
            offers, failure = await self._offers(sync=False, report=no_report)
            entries = offers.everything()
        else:
            entries = await self.entries(repository)
        named = [entry for entry in entries if entry.language.lower() == language.strip().lower()]
        usable = [entry for group in by_repository(named) for entry in sorted(group, key=lambda entry: not entry.architecture)]
        found = preferred((entry for entry in usable if fits(entry.architecture)), version_range)
        if found:
            return found[0]
        if (foreign := newest(named, version_range)) is not None:
            raise UnusablePackage(f"{foreign.name} is for {foreign.architecture}, and this machine is {architecture()}")
        if failure is not None:
            raise failure
        error = NotFound("package", f"{language}-{version_range}")
        if named:
            error.hint = f"versions of {language} there: {version_words(named)}"
        raise error

    async def plan(self, entry: Entry, installed: Sequence[Entry]) -> list[Entry]:
        """List what has to be installed for an entry: dependencies first, the entry last, nothing that is there already.

        Raises: DependencyConflict naming those who disagree, or the circle; RepositoryError; NotTrusted.
        """
        if not entry.dependencies:
            return resolve.plan(entry, installed, resolve.Offers({}))
        offers, failure = await self._offers(sync=False, report=no_report)
        try:
            return await asyncio.to_thread(resolve.plan, entry, installed, offers)
        except DependencyConflict as error:
            if failure is not None:
                error.hint = failure.message
            raise

    def _source(self, name: str) -> Source:
        for source in sources_of(self._settings):
            if source.name == name:
                return source
        raise NotFound("repository", name)

    async def _offers(self, *, sync: bool, report: Report) -> tuple[resolve.Offers, PackageError | None]:
        """Gather what every repository has, up to the first that cannot be read."""
        found: dict[str, list[Entry]] = {}
        failure: PackageError | None = None
        for source in sources_of(self._settings):
            if failure is not None and source.name != BUILT:
                continue
            try:
                found[source.name] = (await self._index(source, sync=sync, report=report)).entries
            except PackageError as error:
                failure = failure or error
                report(Progress(package=source.name, step="index", words=error.message))
        return resolve.Offers(found), failure

    async def _index(self, source: Source, *, sync: bool, report: Report) -> Index:
        index = None if sync else await asyncio.to_thread(self._remembered, source)
        if index is None:
            index = await self._sync(source, report)
        for trouble in index.troubles:
            report(Progress(package=source.name, step="index", words=trouble))
        return index

    def _remembered(self, source: Source) -> Index | None:
        """Get the index as it is kept, checked against the keys of today; None when it has to be fetched."""
        folder = self._folder(source)
        files = [key_file(self._settings, source.name), self._folder_path(source) / "state.json"]
        if not source.on_network:
            files += [source.path, _beside(source.path)]
        stamp = (source.location, *(_stamp(path) for path in files))
        kept = self._kept.get(source.name)
        if kept is not None and kept.stamp == stamp:
            return kept.index
        if not source.on_network:
            index = self._accept(source, _read_local(source))
        else:
            state = folder.state()
            content = folder.content(state) if state.location == source.location else None
            if content is None:
                return None
            fetched = _Fetched(content=content[0], signature=content[1])
            if not fetched.signature and trusted_keys(self._settings, source.name):
                return None
            self._signed_at(source, fetched)
            index = state.without_changed(_read(source, fetched))
        self._kept[source.name] = _Kept(stamp=(source.location, *(_stamp(path) for path in files)), index=index)
        return index

    async def _sync(self, source: Source, report: Report) -> Index:
        report(Progress(package=source.name, step="index", total=1))
        try:
            fetched = await self._fetch(source)
            try:
                index = await asyncio.to_thread(self._accept, source, fetched)
            except NotTrusted:
                # The index may have been renewed between its own fetching and its signature's.
                again = await self._fetch(source)
                if again == fetched:
                    raise
                index = await asyncio.to_thread(self._accept, source, again)
        except OSError as error:
            raise RepositoryError(source.name, f"its index cannot be kept: {error}") from None
        report(Progress(package=source.name, step="index", done=1, total=1))
        return index

    async def _fetch(self, source: Source) -> _Fetched:
        if not source.on_network:
            return await asyncio.to_thread(_read_local, source)
        wants_signature = bool(await asyncio.to_thread(trusted_keys, self._settings, source.name))
        try:
            async with network.new_client() as client:
                content = await network.get(client, source.location, most_bytes=MOST_BYTES, source=source)
                signature = await _signature(client, source) if wants_signature else b""
        except (network.Unreachable, network.Refused) as error:
            raise RepositoryError(source.name, f"its index cannot be fetched: {error}") from None
        return _Fetched(content=content, signature=signature)

    def _accept(self, source: Source, fetched: _Fetched) -> Index:
        """Check an index against the trusted keys and all that was seen before, then keep it."""
        signed_at = self._signed_at(source, fetched)
        index = _read(source, fetched)
        if source.name == BUILT:
            # The operator's own work: what is built anew may differ.
            return index
        folder = self._folder(source)
        with folder.locked():
            state = folder.state()
            state.refuse_replay(source.name, index.serial, signed_at)
            index = state.without_changed(index)
            state = state.after(source, fetched.content, index.entries, index.serial, signed_at)
            folder.store(state, content=fetched.content, signature=fetched.signature if signed_at is not None else b"")
        return index

    def _signed_at(self, source: Source, fetched: _Fetched) -> datetime | None:
        """Check the signature. None where no key is trusted: then there is nothing that one could be checked against."""
        keys = trusted_keys(self._settings, source.name)
        if not keys:
            return None
        return verify_bytes(
            fetched.content, signature=fetched.signature, keys=keys, what=f"the index of repository {source.name}"
        ).created

    def _folder_path(self, source: Source) -> Path:
        return packages_folder(self._settings) / "repositories" / source.name

    def _folder(self, source: Source) -> StateFolder:
        return StateFolder(source.name, self._folder_path(source))


def _read(source: Source, fetched: _Fetched) -> Index:
    location = source.location if source.on_network else source.path.as_uri()
    return read_index(fetched.content, repository=source.name, location=location)


async def _signature(client: httpx.AsyncClient, source: Source) -> bytes:
    """Fetch the signature of an index; b"" when there is none."""
    parts = urlsplit(source.location)
    address = urlunsplit(parts._replace(path=parts.path + ".asc"))
    try:
        return await network.get(client, address, most_bytes=MOST_SIGNATURE_BYTES, source=source)
    except network.Refused as error:
        if error.status in _NO_SIGNATURE:
            return b""
        raise


def _read_local(source: Source) -> _Fetched:
    """Read an index of this machine. Raises: RepositoryError."""
    try:
        path = source.path
        content = _read_file(path, MOST_BYTES)
        signature = _read_file(_beside(path), MOST_SIGNATURE_BYTES) if _beside(path).exists() else b""
    except (OSError, ValueError) as error:
        raise RepositoryError(source.name, f"its index cannot be read: {error}") from None
    return _Fetched(content=content, signature=signature)


def _read_file(path: Path, most_bytes: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError(f"{path} is not a file")
        content = opened.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"{path} is larger than {most_bytes} bytes")
    return content


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".asc")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
