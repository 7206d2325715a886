"""Packages of this server: what there is, installing and uninstalling, and which runtimes an installed one brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from firebox.domain.errors import Conflict, InvalidRequest, NotFound, ShuttingDown, UnknownRuntime
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.installed.store import Installed, PackageStore
from firebox.packages.repository.sources import sources_of
from firebox.packages.versions import newest, sort_key, version_words
from firebox.runtimes.install_hints import building_hint, installing_hint
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.installations import Installation, note_outcome
from firebox.service.validation import check_selector
from firebox.settings.settings import Settings

if TYPE_CHECKING:  # these bring the libraries that talk to networks and read signatures
    from firebox.packages.installed.install import Installer
    from firebox.packages.repository.repositories import Repositories

ALREADY_INSTALLED = "Already installed"
RETRY_AFTER_STOP_S = 5.0

_log = structlog.get_logger("firebox.packages")


class Listed(Struct, frozen=True):
    """A package, and whether it is installed."""

    language: str
    version: str
    installed: bool


class Packages:
    """The use cases, one instance a process. Who may do what is asked of `Accounts.require_operator` before.

    reload: has the registry tell of what is installed now.
    """

    def __init__(
        self, store: PackageStore, settings: Settings, registry: Registry, reload: Callable[[], Awaitable[None]]
    ) -> None:
        """Raises: SettingsError when the setting `repositories` cannot be read."""
        sources_of(settings)
        self._store = store
        self._settings = settings
        self._registry = registry
        self._reload = reload
        self._under_way: dict[str, Installation] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._listing: asyncio.Task[list[Entry]] | None = None
        self._closed = False

    @cached_property
    def _repositories(self) -> Repositories:
        from firebox.packages.repository.repositories import Repositories

        return Repositories(self._settings)

    @cached_property
    def _installer(self) -> Installer:
        from firebox.packages.installed.install import Installer

        return Installer(self._settings, self._store, self._repositories)

    async def all(self) -> list[Listed]:
        """List what repositories have and what is installed, by name and the newest first.

        Languages of the host are no packages: nobody can install or uninstall them here. Neither is what others are built on as
        long as they need it: a base brings nothing that can run, and a client that tidies up could only fail at it.
        Raises: RepositoryError, NotTrusted.
        """
        known = await self._known()
        # Tens of thousands take a while to sort, and anybody may ask for them.
        installed = self._store.all()
        needed = {id_ for each in installed for id_ in each.requires}
        bases = {
            (each.entry.language, each.entry.version) for each in installed if each.id in needed and not self.runtimes_of(each)
        }
        return await asyncio.to_thread(_listed, installed, known, bases)

    def repositories(self) -> list[str]:
        """Name the repositories, in the order in which they are asked."""
        return self._repositories.names()

    async def entries(self, repository: str, *, sync: bool = False) -> list[Entry]:
        """List what a repository has, or `all` of them. sync: get the index anew first.

        Raises: NotFound for the repository, RepositoryError, NotTrusted.
        """
        return await self._repositories.entries(repository, sync=sync, report=_log_words)

    async def sync(self, repository: str = "all") -> None:
        """Get an index anew. Raises: as `entries`."""
        await self._repositories.sync(repository, _log_words)

    async def find(self, language: str, version_range: str = "*", *, repository: str = "all") -> Entry:
        """Find the newest package of this very name, never an alias, whose version matches.

        Raises: NotFound, InvalidRequest, RepositoryError, NotTrusted.
        """
        check_selector(language, version_range)
        try:
            return await self._repositories.find(language, version_range, repository=repository)
        except NotFound as error:
            if error.kind == "package" and not error.hint:
                error.hint = building_hint(language)
            raise

    def find_installed(self, language: str, version_range: str) -> Installed | None:
        """Find the newest installed package of this name whose version matches. Names are of small letters."""
        name = language.strip().lower()
        installed = {each.entry.version: each for each in self._store.all() if each.entry.language == name}
        found = newest((each.entry for each in installed.values()), version_range)
        return installed[found.version] if found else None

    def installed(self) -> list[Installed]:
        """List what is installed, by name."""
        return self._store.all()

    def is_installed(self, entry: Entry) -> bool:
        return self._store.get(entry.name) is not None

    def get(self, language: str, version: str) -> Installed:
        """Find an installed package by its name and its exact version. Raises: NotFound, InvalidRequest."""
        check_selector(language, version)
        # One id may be cut into name and version in more than one way: `a-1` 2.0.0 and `a` 1-2.0.0.
        found = self._store.get(f"{language}-{version}")
        if found is None or (found.entry.language, found.entry.version) != (language, version):
            raise self._not_installed(language, version)
        return found

    def removable(self, language: str, version: str) -> str:
        """Find the id of what is to be uninstalled, a damaged package too, by name and exact version. Raises: as `get`."""
        try:
            return self.get(language, version).id
        except NotFound:
            id_ = f"{language}-{version}"
            if id_ not in self._store.damaged():
                raise
            return id_

    def runtimes_of(self, package: Installed) -> list[Runtime]:
        """List the runtimes that an installed package brings; a base brings none."""
        return self._registry.of_package(package.id)

    async def runtime_of(self, package: Installed, language: str | None) -> Runtime:
        """Choose one of a package's runtimes. language: a name or alias; None: the one called as the package, or the only one.

        Raises: InvalidRequest, Conflict for a package without any.
        """
        runtimes = self.runtimes_of(package)
        if not runtimes:
            await self._renew()  # it may have come a moment ago
            runtimes = self.runtimes_of(package)
        if not runtimes:
            raise Conflict(f"{package.id} brings nothing that can run", hint="it is there for packages that depend on it")
        if language is not None:
            check_selector(language, "*")
            try:
                return self._registry.resolve(language, "*", package.id)
            except UnknownRuntime:
                words = f"{package.id} does not provide {language[:64]!r}; {_names(runtimes)}"
                raise InvalidRequest(words, where="language") from None
        named = [runtime for runtime in runtimes if runtime.language == package.entry.language]
        if len(runtimes) > 1 and not named:
            raise InvalidRequest(f"{package.id} provides several languages; {_names(runtimes)}", where="language")
        return (named or runtimes)[0]

    def install(self, entry: Entry) -> Installation:
        """Begin to install a package with what it depends on, or join whoever installs it already.

        Raises: Conflict when it is there already, is being uninstalled, or another repository's package of that name and version
        is on its way; ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown("the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)
        under_way = self._under_way.get(entry.name)
        if under_way is not None:
            if under_way.entry != entry:
                raise Conflict(f"{entry.name} is being installed from another repository, {under_way.entry.repository}")
            return under_way
        if self.is_installed(entry):
            raise Conflict(ALREADY_INSTALLED)

        async def work(report: Report) -> list[Installed]:
            try:
                return await self._installer.install(entry, report)
            finally:
                try:
                    await self._renew()  # also when it failed: what it depends on may be there now
                finally:
                    del self._under_way[entry.name]

        self._under_way[entry.name] = installation = Installation(entry, work)
        return installation

    async def uninstall(self, id_: str) -> None:
        """Remove an installed package by its id. Waits for the runs that use it; a caller who goes away does not stop it.

        Raises: NotFound, Conflict when others need it or it stays in use.
        """
        if self._closed:
            raise ShuttingDown("the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)
        leaving = self._leaving.get(id_)
        if leaving is None:
            leaving = self._leaving[id_] = asyncio.create_task(self._uninstall(id_), name=f"uninstall {id_}")
            leaving.add_done_callback(note_outcome)
        await asyncio.wait((leaving,))
        if leaving.cancelled():
            raise ShuttingDown(f"the server stopped before {id_} was uninstalled", retry_after_s=RETRY_AFTER_STOP_S)
        leaving.result()

    async def close(self) -> None:
        """Begin nothing any more, and stop what is under way: what is not finished is not there."""
        self._closed = True
        leaving = list(self._leaving.values())
        for task in leaving:
            task.cancel()
        await asyncio.gather(*(each.cancel() for each in list(self._under_way.values())), *leaving, return_exceptions=True)

    def _not_installed(self, language: str, version: str) -> NotFound:
        """Say that an installed package is not there, and what can be had instead."""
        error = NotFound("package", f"{language}-{version}")
        versions = version_words(each.entry for each in self._store.all() if each.entry.language == language)
        error.hint = f"versions of {language} here: {versions}" if versions else installing_hint(language)
        return error

    async def _uninstall(self, id_: str) -> None:
        try:
            await self._installer.uninstall(id_)
            _log.info("a package is uninstalled", package=id_)
        finally:
            try:
                await self._renew()
            finally:
                del self._leaving[id_]

    async def _renew(self) -> None:
        try:
            await self._reload()
        except OSError as error:  # what was asked for has been done; the store is looked at again later
            _log.warning("the installed packages cannot be read", error=str(error))

    async def _known(self) -> list[Entry]:
        """List all repositories. However many ask, the network is asked once at a time: anybody may ask for this list."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._repositories.entries("all", report=_log_words))
            self._listing.add_done_callback(note_outcome)
        listing = self._listing
        await asyncio.wait((listing,))
        return listing.result()


def _listed(installed: Iterable[Installed], known: Iterable[Entry], hidden: set[tuple[str, str]]) -> list[Listed]:
    there = {(each.entry.language, each.entry.version) for each in installed}
    shown = {*there, *((entry.language, entry.version) for entry in known)} - hidden
    names = sorted(shown, key=lambda name: sort_key(name[1]), reverse=True)
    names.sort(key=lambda name: name[0])
    return [Listed(language, version, (language, version) in there) for language, version in names]


def _log_words(progress: Progress) -> None:
    """Write down what a repository is in trouble with, although its packages can be had, or others'."""
    if progress.words:
        _log.warning("a repository has a problem", repository=progress.package, problem=progress.words)


def _names(runtimes: Iterable[Runtime]) -> str:
    return "there are: " + ", ".join(dict.fromkeys(runtime.language for runtime in runtimes))
