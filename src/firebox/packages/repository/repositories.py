"""Repositories from the settings: index synchronization, search and dependency planning."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

from firebox.domain.errors import DependencyConflict, NotFound, NotTrusted, PackageError, RepositoryError, UnusablePackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.machine import architecture, fits
from firebox.packages.repository import network, resolve
from firebox.packages.repository.index import MAX_INDEX_BYTES, Index, parse_index
from firebox.packages.repository.repository_state import IndexFile, StateFolder
from firebox.packages.repository.signatures import MAX_SIGNATURE_BYTES, key_file, trusted_keys, verify_signature
from firebox.packages.repository.sources import ALL, BUILT, Source, read_sources
from firebox.packages.versions import format_versions, group_by_repository, newest, preferred
from firebox.settings.settings import Settings

_MISSING = {403, 404, 410}
"""Status codes that mean "there is no signature file"."""


class Repositories:
    """The installable packages. Several instances, in several processes, may share the same settings."""

    def __init__(self, settings: Settings) -> None:
        """Raises: SettingsError if the setting `repositories` is invalid."""
        self._settings = settings
        self._cache: dict[str, tuple[tuple[object, ...], Index]] = {}
        """Indexes by repository, each with the stamps of the files it was read from."""
        read_sources(settings)

    def names(self) -> list[str]:
        """List the repositories in the order of the settings, then `built` if anything was built locally."""
        return [source.name for source in read_sources(self._settings)]

    async def entries(self, name: str = ALL, *, sync: bool = False, report: Report = no_report) -> list[Entry]:
        """List the packages of a repository; fetch its index if there is no local copy. sync: always fetch it.

        name: `all` means every repository; the first repository that has a version wins. An unreadable repository hides those
        after it, because it is unknown which versions it owns; the problem is passed to `report`.
        Raises: NotFound; RepositoryError; NotTrusted.
        """
        if name != ALL:
            return list((await self._index(self._source(name), sync=sync, report=report)).entries)
        catalog, failure = await self._collect(sync=sync, report=report)
        found = catalog.all_packages()
        if failure is not None and (sync or not found):
            raise failure
        return found

    async def sync(self, name: str = ALL, report: Report = no_report) -> None:
        """Fetch an index again, or every index for `all`. Raises: as `entries`; the first failure, after all were tried."""
        failure: PackageError | None = None
        for source in read_sources(self._settings) if name == ALL else [self._source(name)]:
            try:
                await self._index(source, sync=True, report=report)
            except PackageError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def find(self, language: str, version_range: str = "*", *, repository: str = ALL) -> Entry:
        """Find the newest version in a range that runs on this machine. For `all`, the first repository with a match wins.

        Raises: NotFound; UnusablePackage if all matches are for other architectures; RepositoryError; NotTrusted.
        """
        failure: PackageError | None = None
        if repository == ALL:
            catalog, failure = await self._collect()
            entries = catalog.all_packages()
        else:
            entries = await self.entries(repository)
        named = [entry for entry in entries if entry.language.lower() == language.strip().lower()]
        usable = [each for group in group_by_repository(named) for each in sorted(group, key=lambda each: not each.architecture)]
        found = preferred((entry for entry in usable if fits(entry.architecture)), version_range)
        if found:
            return found[0]
        if (foreign := newest(named, version_range)) is not None:
            raise UnusablePackage(f"{foreign.name} is built for {foreign.architecture}; this machine is {architecture()}")
        if failure is not None:
            raise failure
        hint = f"available versions of {language}: {format_versions(named)}" if named else ""
        raise NotFound("package", f"{language}-{version_range}", hint=hint)

    async def plan(self, entry: Entry, installed: Sequence[Entry]) -> list[Entry]:
        """Resolve what to install for an entry, see `resolve.plan`. Raises: DependencyConflict; RepositoryError; NotTrusted."""
        if not entry.dependencies:
            return resolve.plan(entry, installed, resolve.Catalog({}))
        catalog, failure = await self._collect()
        try:
            return await asyncio.to_thread(resolve.plan, entry, installed, catalog)
        except DependencyConflict as error:
            if failure is not None:
                error.hint = failure.message
            raise

    def _source(self, name: str) -> Source:
        for source in read_sources(self._settings):
            if source.name == name:
                return source
        raise NotFound("repository", name)

    async def _collect(self, *, sync: bool = False, report: Report = no_report) -> tuple[resolve.Catalog, PackageError | None]:
        """Collect the packages of every repository up to the first unreadable one."""
        found: dict[str, list[Entry]] = {}
        failure: PackageError | None = None
        for source in read_sources(self._settings):
            if failure is not None and source.name != BUILT:
                continue
            try:
                found[source.name] = (await self._index(source, sync=sync, report=report)).entries
            except PackageError as error:
                failure = failure or error
                report(Progress(package=source.name, step="index", words=error.message))
        return resolve.Catalog(found), failure

    async def _index(self, source: Source, *, sync: bool, report: Report) -> Index:
        index = None if sync else await asyncio.to_thread(self._cached_index, source)
        if index is None:
            index = await self._sync(source, report)
        for warning in index.warnings:
            report(Progress(package=source.name, step="index", words=warning))
        return index

    def _cached_index(self, source: Source) -> Index | None:
        """Return the cached index, verified against the current keys; None if it must be fetched."""
        folder = StateFolder(self._settings, source.name)
        files = [key_file(self._settings, source.name), folder.state_file]
        if not source.on_network:
            files += [source.path, _signature_path(source.path)]

        def stamp() -> tuple[object, ...]:
            return source.location, *(_file_stamp(path) for path in files)

        cached_stamp, index = self._cache.get(source.name, (None, None))
        if cached_stamp == stamp():
            return index
        if not source.on_network:
            index = self._accept(source, _read_local_index(source))
        else:
            state = folder.state()
            stored = folder.index_file(state) if state.location == source.location else None
            if stored is None or (not stored.signature and trusted_keys(self._settings, source.name)):
                return None
            self._verify_signature(source, stored)
            index = state.without_changed_versions(_parse(source, stored))
        self._cache[source.name] = stamp(), index
        return index

    async def _sync(self, source: Source, report: Report) -> Index:
        report(Progress(package=source.name, step="index", total=1))
        try:
            fetched = await self._fetch(source)
            try:
                index = await asyncio.to_thread(self._accept, source, fetched)
            except NotTrusted:
                # The index may have changed between fetching it and its signature.
                again = await self._fetch(source)
                if again == fetched:
                    raise
                index = await asyncio.to_thread(self._accept, source, again)
        except OSError as error:
            raise RepositoryError(source.name, f"its index cannot be stored: {error}") from None
        report(Progress(package=source.name, step="index", done=1, total=1))
        return index

    async def _fetch(self, source: Source) -> IndexFile:
        if not source.on_network:
            return await asyncio.to_thread(_read_local_index, source)
        wants_signature = bool(await asyncio.to_thread(trusted_keys, self._settings, source.name))
        try:
            async with network.new_client() as client:
                content = await network.get(client, source.location, max_bytes=MAX_INDEX_BYTES, source=source)
                signature = await _fetch_signature(client, source) if wants_signature else b""
        except (network.TransientError, network.PermanentError) as error:
            raise RepositoryError(source.name, f"its index cannot be fetched: {error}") from None
        return IndexFile(content=content, signature=signature)

    def _accept(self, source: Source, fetched: IndexFile) -> Index:
        """Verify an index against the trusted keys and the recorded history, then store it."""
        signed_at = self._verify_signature(source, fetched)
        index = _parse(source, fetched)
        if source.name == BUILT:
            # Built locally by the operator: a rebuild may differ.
            return index
        folder = StateFolder(self._settings, source.name)
        with folder.lock():
            state = folder.state()
            state.check_replay(source.name, index.serial, signed_at)
            index = state.without_changed_versions(index)
            folder.store(state.updated(source, fetched.content, index, signed_at), fetched)
        return index

    def _verify_signature(self, source: Source, fetched: IndexFile) -> datetime | None:
        """Verify the signature and return its time; None if no key is trusted for the repository."""
        keys = trusted_keys(self._settings, source.name)
        if not keys:
            return None
        what = f"the index of repository {source.name}"
        return verify_signature(fetched.content, signature=fetched.signature, keys=keys, what=what)


def _parse(source: Source, fetched: IndexFile) -> Index:
    location = source.location if source.on_network else source.path.as_uri()
    return parse_index(fetched.content, repository=source.name, location=location)


async def _fetch_signature(client: httpx.AsyncClient, source: Source) -> bytes:
    """Fetch the signature of an index; b"" if there is none."""
    parts = urlsplit(source.location)
    address = urlunsplit(parts._replace(path=parts.path + ".asc"))
    try:
        return await network.get(client, address, max_bytes=MAX_SIGNATURE_BYTES, source=source)
    except network.PermanentError as error:
        if error.status in _MISSING:
            return b""
        raise


def _read_local_index(source: Source) -> IndexFile:
    """Read a local index. Raises: RepositoryError."""
    try:
        path = source.path
        content = _read_file(path, MAX_INDEX_BYTES)
        signature = _read_file(_signature_path(path), MAX_SIGNATURE_BYTES) if _signature_path(path).exists() else b""
    except (OSError, ValueError) as error:
        raise RepositoryError(source.name, f"its index cannot be read: {error}") from None
    return IndexFile(content=content, signature=signature)


def _read_file(path: Path, max_bytes: int) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError(f"{path} is not a file")
        content = opened.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path} is larger than {max_bytes} bytes")
    return content


def _signature_path(path: Path) -> Path:
    return path.with_name(path.name + ".asc")


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
