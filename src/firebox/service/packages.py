"""Package management for a server: available packages, installation, removal, and the runtimes of installed packages."""

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
from firebox.packages.repository.sources import read_sources
from firebox.packages.versions import format_versions, newest, sort_key
from firebox.runtimes.install_hints import building_hint, installing_hint
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.installations import Installation, log_unexpected_error
from firebox.service.validation import check_selector
from firebox.settings.settings import Settings

if TYPE_CHECKING:  # these import the HTTP client and the OpenPGP library
    from firebox.packages.installed.install import Installer
    from firebox.packages.repository.repositories import Repositories

ALREADY_INSTALLED = "Already installed"
RETRY_AFTER_STOP_S = 5.0

_log = structlog.get_logger("firebox.packages")


class PackageListing(Struct, frozen=True):
    """A package and its installation state."""

    language: str
    version: str
    installed: bool


class Packages:
    """The package use cases. Callers must check `Accounts.require_operator` first. refresh: updates the runtimes of packages."""

    def __init__(
        self, store: PackageStore, settings: Settings, registry: Registry, refresh: Callable[[], Awaitable[None]]
    ) -> None:
        """Raises: SettingsError if the setting `repositories` is invalid."""
        read_sources(settings)
        self._store = store
        self._settings = settings
        self._registry = registry
        self._refresh = refresh
        self._installations: dict[str, Installation] = {}
        self._uninstallations: dict[str, asyncio.Task[None]] = {}
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

    async def all(self) -> list[PackageListing]:
        """List available and installed packages, sorted by name, newest version first.

        Languages of the host are not packages: they cannot be installed or uninstalled here. Bases are hidden while other
        packages depend on them: they provide no runtime, and clients cannot uninstall them.
        Raises: RepositoryError, NotTrusted.
        """
        known = await self._list_repositories()
        # Sorting tens of thousands of entries is slow, and any client may request the list.
        installed = self._store.all()
        needed = {id_ for each in installed for id_ in each.requires}
        bases = {
            (each.entry.language, each.entry.version) for each in installed if each.id in needed and not self.runtimes_of(each)
        }
        return await asyncio.to_thread(_merge, installed, known, bases)

    def repositories(self) -> list[str]:
        """List the repository names in order of precedence."""
        return self._repositories.names()

    async def entries(self, repository: str, *, sync: bool = False) -> list[Entry]:
        """List the packages of a repository, or of `all`. sync: fetch it first. Raises: NotFound, RepositoryError, NotTrusted."""
        return await self._repositories.entries(repository, sync=sync, report=_log_words)

    async def sync(self, repository: str = "all") -> None:
        """Fetch an index again. Raises: as `entries`."""
        await self._repositories.sync(repository, _log_words)

    async def find(self, language: str, version_range: str = "*", *, repository: str = "all") -> Entry:
        """Find the newest match of an exact name, no alias. Raises: NotFound, InvalidRequest, RepositoryError, NotTrusted."""
        check_selector(language, version_range)
        try:
            return await self._repositories.find(language, version_range, repository=repository)
        except NotFound as error:
            if error.kind == "package" and not error.hint:
                error.hint = building_hint(language)
            raise

    def find_installed(self, language: str, version_range: str) -> Installed | None:
        """Find the newest installed package of this name in a version range. Names are compared in lower case."""
        name = language.strip().lower()
        installed = {each.entry.version: each for each in self._store.all() if each.entry.language == name}
        found = newest((each.entry for each in installed.values()), version_range)
        return installed[found.version] if found else None

    def installed(self) -> list[Installed]:
        """List the installed packages by name."""
        return self._store.all()

    def is_installed(self, entry: Entry) -> bool:
        return self._store.get(entry.name) is not None

    def get(self, language: str, version: str) -> Installed:
        """Return an installed package by name and exact version. Raises: NotFound, InvalidRequest."""
        check_selector(language, version)
        # An id can be split into name and version in more than one way: `a-1` 2.0.0 and `a` 1-2.0.0.
        found = self._store.get(f"{language}-{version}")
        if found is None or (found.entry.language, found.entry.version) != (language, version):
            versions = format_versions(each.entry for each in self._store.all() if each.entry.language == language)
            error = NotFound("package", f"{language}-{version}")
            error.hint = f"installed versions of {language}: {versions}" if versions else installing_hint(language)
            raise error
        return found

    def id_to_uninstall(self, language: str, version: str) -> str:
        """Return the id of a package to uninstall, possibly a corrupt one, by name and exact version. Raises: as `get`."""
        try:
            return self.get(language, version).id
        except NotFound:
            id_ = f"{language}-{version}"
            if id_ not in self._store.damaged():
                raise
            return id_

    def runtimes_of(self, package: Installed) -> list[Runtime]:
        """List the runtimes of an installed package; a base has none."""
        return self._registry.of_package(package.id)

    async def runtime_of(self, package: Installed, language: str | None) -> Runtime:
        """Select a runtime of a package. language: a name or alias; None: the package's own name, or its only runtime.

        Raises: InvalidRequest; Conflict if the package has no runtime.
        """
        runtimes = self.runtimes_of(package)
        if not runtimes:
            await self._refresh()  # it may have been installed a moment ago
            runtimes = self.runtimes_of(package)
        if not runtimes:
            raise Conflict(f"{package.id} provides no runtime", hint="it is a dependency of other packages")
        if language is not None:
            check_selector(language, "*")
            try:
                return self._registry.resolve(language, installed=package.id)
            except UnknownRuntime:
                words = f"{package.id} does not provide {language[:64]!r}; {_available(runtimes)}"
                raise InvalidRequest(words, where="language") from None
        named = [runtime for runtime in runtimes if runtime.language == package.entry.language]
        if len(runtimes) > 1 and not named:
            raise InvalidRequest(f"{package.id} provides several languages; {_available(runtimes)}", where="language")
        return (named or runtimes)[0]

    def install(self, entry: Entry) -> Installation:
        """Start to install a package with its dependencies, or join an installation in progress.

        Raises: Conflict if it is installed, is being uninstalled, or the same name and version is being installed from another
        repository; ShuttingDown.
        """
        self._check_open()
        running = self._installations.get(entry.name)
        if running is not None:
            if running.entry != entry:
                raise Conflict(f"{entry.name} is being installed from another repository, {running.entry.repository}")
            return running
        if self.is_installed(entry):
            raise Conflict(ALREADY_INSTALLED)

        async def work(report: Report) -> list[Installed]:
            try:
                return await self._installer.install(entry, report)
            finally:
                try:
                    await self._refresh()  # after a failure, too: dependencies may have been installed
                finally:
                    del self._installations[entry.name]

        self._installations[entry.name] = installation = Installation(entry, work)
        return installation

    async def uninstall(self, id_: str) -> None:
        """Uninstall a package by its id, after waiting for active runs. Cancelling the caller does not stop it.

        Raises: NotFound; Conflict if other packages require it or it stays in use.
        """
        self._check_open()
        uninstallation = self._uninstallations.get(id_)
        if uninstallation is None:
            uninstallation = self._uninstallations[id_] = asyncio.create_task(self._uninstall(id_), name=f"uninstall {id_}")
            uninstallation.add_done_callback(log_unexpected_error)
        await asyncio.wait((uninstallation,))
        if uninstallation.cancelled():
            raise ShuttingDown(f"the server shut down before {id_} was uninstalled", retry_after_s=RETRY_AFTER_STOP_S)
        uninstallation.result()

    async def close(self) -> None:
        """Refuse new work and cancel work in progress; unfinished changes are rolled back."""
        self._closed = True
        uninstallations, installations = [*self._uninstallations.values()], [*self._installations.values()]
        for task in uninstallations:
            task.cancel()
        await asyncio.gather(*uninstallations, *(each.cancel() for each in installations), return_exceptions=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ShuttingDown("the server is shutting down", retry_after_s=RETRY_AFTER_STOP_S)

    async def _uninstall(self, id_: str) -> None:
        try:
            await self._installer.uninstall(id_)
            _log.info("package uninstalled", package=id_)
        finally:
            try:
                await self._refresh()
            finally:
                del self._uninstallations[id_]

    async def _list_repositories(self) -> list[Entry]:
        """List all repositories. Concurrent callers share one listing, since any client may ask for it."""
        if self._listing is None or self._listing.done():
            self._listing = asyncio.create_task(self._repositories.entries("all", report=_log_words))
            self._listing.add_done_callback(log_unexpected_error)
        listing = self._listing
        await asyncio.wait((listing,))
        return listing.result()


def _merge(installed: Iterable[Installed], known: Iterable[Entry], hidden: set[tuple[str, str]]) -> list[PackageListing]:
    there = {(each.entry.language, each.entry.version) for each in installed}
    shown = {*there, *((entry.language, entry.version) for entry in known)} - hidden
    names = sorted(shown, key=lambda name: sort_key(name[1]), reverse=True)
    names.sort(key=lambda name: name[0])
    return [PackageListing(language, version, (language, version) in there) for language, version in names]


def _log_words(progress: Progress) -> None:
    """Log a repository problem that does not prevent listing."""
    if progress.words:
        _log.warning("repository problem", repository=progress.package, problem=progress.words)


def _available(runtimes: Iterable[Runtime]) -> str:
    return "available: " + ", ".join(dict.fromkeys(runtime.language for runtime in runtimes))
