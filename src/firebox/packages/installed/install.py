"""Atomic installation and removal of packages.

All packages of one installation are prepared in staging folders first. Each is then committed by a single rename,
dependencies first. Removal is a single rename, too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from firebox.domain.errors import Conflict, DependencyConflict, NotFound, PackageError, UnusablePackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.file_locks import refers_to, wait_for_lock
from firebox.packages.installed.environment_script import evaluate
from firebox.packages.installed.metadata import check_architecture, check_package_name
from firebox.packages.installed.piston_archive import piston_home, piston_runtimes
from firebox.packages.installed.preparation import Prepared, describe, prepare, write_file
from firebox.packages.installed.staging import Staging, StagingFolder, in_thread
from firebox.packages.installed.store import DESCRIPTION, RUNTIMES, Installed, PackageStore, dependents_first, uninstalling
from firebox.packages.installed.tree import FILE, FOLDER, disk_usage, opened, remove, sync_file_system, sync_files
from firebox.packages.versions import newest
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from firebox.packages.repository.repositories import Repositories

_ROUNDS = 100
"""Maximum number of times that packages may turn out to have dependencies their index does not list."""
_GATE_TIMEOUT_S = 1.0
"""Runs hold the gate only briefly; a longer holder is another uninstallation."""


class Installer:
    """Installs and uninstalls packages. Several installers, in several processes, may work on one store."""

    def __init__(self, settings: Settings, store: PackageStore, repositories: Repositories) -> None:
        self._settings = settings
        self._store = store
        self._repositories = repositories
        self._staging = Staging(store.folder)

    async def install(self, entry: Entry, report: Report = no_report, *, file: Path | None = None) -> list[Installed]:
        """Download, verify and install a package and its missing dependencies.

        Return the installed packages, dependencies first. A failure changes nothing. file: a trusted file of the package.
        Raises: Conflict("Already installed"); PackageError; SandboxError if the environment cannot be evaluated.
        """
        corrected: dict[str, Entry] = {}
        for _ in range(_ROUNDS):
            with _os_errors_as_package_errors(entry.name):
                self._check_not_installed(entry)
                plan = await self._plan(entry, corrected)
                for each in plan:
                    check_package_name(each.language, each.version)
                    check_architecture(each.name, each.architecture)
                try:
                    return await self._install_all(plan, entry, file, report)
                except _MissingDependencies as incomplete:
                    corrected[incomplete.entry.name] = incomplete.entry
        raise DependencyConflict(f"the dependencies of {entry.name} are nested more than {_ROUNDS} levels deep")

    async def install_file(self, path: Path, report: Report = no_report) -> list[Installed]:
        """Install a file that the operator trusts, with dependencies from the repositories. Raises: NotFound; as `install`."""
        path = await in_thread(path.absolute)
        if not await in_thread(path.is_file):
            raise NotFound("file", str(path))
        with _os_errors_as_package_errors(path.name):
            entry = await describe(path, self._settings.max_package_bytes)
        return await self.install(entry, report, file=path)

    async def uninstall(self, id: str, report: Report = no_report) -> None:  # noqa: A002 - the word of the whole interface
        """Remove a package, even a corrupt one, once no run uses it. New runs with it are refused meanwhile.

        Raises: NotFound; Conflict if another package requires it, if it is already being uninstalled, or if it is still in use
        after `uninstall_wait_ms`. It then stays installed.
        """
        if self._store.get(id) is None and id not in self._store.damaged():
            raise NotFound("package", id)
        self._check_not_required(id)
        report(Progress(package=id, step="uninstall", words="waiting for active runs"))
        with _os_errors_as_package_errors(id), self._opened(id) as (folder, gate):
            if gate is not None and not await wait_for_lock(gate, timeout_s=_GATE_TIMEOUT_S):
                raise uninstalling(id)
            if not await wait_for_lock(folder, timeout_s=self._settings.uninstall_wait_ms / 1000):
                hint = "wait for them to finish, or raise uninstall_wait_ms"
                raise Conflict(f"{id} is in use by active runs", hint=hint)
            trash = self._staging.trash(id)
            async with self._staging.store_lock():
                if not refers_to(folder, self._store.package_folder(id)):
                    raise NotFound("package", id)
                self._check_not_required(id)
                await in_thread(lambda: self._move_away(id, trash))
            # This process still holds its lock, so no other process sweeps it.
            await in_thread(lambda: remove(trash))
        report(Progress(package=id, step="uninstall", done=1, total=1, words="removed"))

    async def _plan(self, entry: Entry, corrected: Mapping[str, Entry]) -> list[Entry]:
        """Resolve the packages to install, including dependencies that an index did not list."""
        installed = [each.entry for each in self._store.all()]
        plan: dict[str, Entry] = {}
        for each in await self._repositories.plan(corrected.get(entry.name, entry), installed):
            if each.name in corrected and each.name != entry.name:
                plan |= {other.name: other for other in await self._repositories.plan(corrected[each.name], installed)}
            else:
                plan.setdefault(each.name, each)
        return list(plan.values())

    async def _install_all(self, plan: Sequence[Entry], entry: Entry, file: Path | None, report: Report) -> list[Installed]:
        from firebox.packages.download.download import fetch

        async with AsyncExitStack() as stack:
            for name in sorted(each.name for each in plan):  # the same order everywhere prevents deadlocks
                await stack.enter_async_context(self._staging.package_lock(name))
            self._check_not_installed(entry)
            missing = [each for each in plan if self._store.get(each.name) is None]
            folders: dict[str, StagingFolder] = {}
            ready: dict[str, Installed] = {}
            downloads: list[Path] = []
            for each in missing:
                with _os_errors_as_package_errors(each.name):
                    folders[each.name] = await stack.enter_async_context(self._staging.new_folder(each.name))
                    source = file if each.name == entry.name else None
                    source = source or await fetch(each, self._staging.downloads, self._settings, report)
                    prepared = await self._prepare(source, folders[each.name], each, report)
                    if source.parent == self._staging.downloads:
                        downloads.append(source)
                    ready[each.name] = await self._finalize(each, prepared, folders, ready, report)
            async with self._staging.store_lock():
                await in_thread(lambda: self._commit(list(ready.values()), folders))
            for download in downloads:
                await in_thread(partial(download.unlink, missing_ok=True))
            for name in ready:
                report(Progress(package=name, step="install", done=1, total=1, words="installed"))
            return list(ready.values())

    async def _prepare(self, source: Path, staging: StagingFolder, entry: Entry, report: Report) -> Prepared:
        downloaded = source.parent == self._staging.downloads
        try:
            prepared = await prepare(source, staging.path, entry, self._settings.max_package_bytes, report, may_link=downloaded)
        except UnusablePackage:
            if downloaded:
                await in_thread(lambda: source.unlink(missing_ok=True))
            raise
        if prepared.info.dependencies and not entry.dependencies:
            raise _MissingDependencies(structs.replace(entry, dependencies=prepared.info.dependencies))
        return prepared

    async def _finalize(
        self, entry: Entry, prepared: Prepared, folders: Mapping[str, StagingFolder], ready: dict[str, Installed], report: Report
    ) -> Installed:
        """Do what depends on the other packages: environment, runtimes of Piston packages, package description."""
        packages = {each.id: each for each in self._store.all()} | ready
        installed = Installed(
            entry=entry,
            kind=prepared.kind,
            installed_at=datetime.now(UTC),
            size_bytes=0,
            requires=_requires(entry, packages.values(), ready.values()),
            on_host=(tree := prepared.piston_tree) is not None,
        )
        packages[installed.id] = installed
        runtimes = prepared.runtimes
        if tree is not None:
            report(Progress(package=entry.name, step="environment"))
            places = {name: folder.path for name, folder in folders.items()}
            stack = [packages[each] for each in dependents_first(installed.id, packages)]
            environment = await evaluate(
                entry.name,
                homes=[piston_home(each.entry.language, each.entry.version) for each in stack],
                layers=[str(places.get(each.id, self._store.package_folder(each.id)) / each.content) for each in stack],
                on_host=all(each.on_host for each in stack),
                uid_base=self._settings.uid_base,
            )
            runtimes = await in_thread(lambda: list(piston_runtimes(prepared.info, tree, environment)))
        report(Progress(package=entry.name, step="install"))
        folder = folders[entry.name].path
        return await in_thread(lambda: _write_description(installed, folder, msgspec.json.encode(runtimes)))

    def _commit(self, ready: Sequence[Installed], folders: Mapping[str, StagingFolder]) -> None:
        """Move every package into place. Blocks; the store lock must be held."""
        there = {each.id for each in self._store.all()}
        for installed in ready:
            if installed.id in there:
                raise Conflict("Already installed")
            for needed in installed.requires:
                if needed not in there:
                    raise Conflict(f"{needed}, required by {installed.id}, was uninstalled meanwhile", hint="try again")
            there.add(installed.id)
        for installed in ready:
            sync = sync_files if installed.kind == "image" else sync_file_system
            sync(folders[installed.id].path)
        with self._staging.visible_change():
            for installed in ready:
                target = self._store.package_folder(installed.id)
                if os.path.lexists(target):  # corrupt, otherwise it would be listed
                    target.rename(self._staging.trash(installed.id))
                folders[installed.id].move_to(target)

    def _move_away(self, id_: str, trash: Path) -> None:
        with self._staging.visible_change():
            self._store.package_folder(id_).rename(trash)

    @contextmanager
    def _opened(self, id_: str) -> Generator[tuple[int, int | None]]:
        """Open the folder of a package and its gate, see `PackageStore.hold`. A corrupt one may lack it. Raises: NotFound."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(opened(self._store.package_folder(id_), FOLDER))
            except FileNotFoundError:
                raise NotFound("package", id_) from None
            gate: int | None = None
            with suppress(FileNotFoundError):
                gate = stack.enter_context(opened(DESCRIPTION, FILE, place=folder))
            yield folder, gate

    def _check_not_installed(self, entry: Entry) -> None:
        if self._store.get(entry.name) is not None:
            raise Conflict("Already installed")

    def _check_not_required(self, id_: str) -> None:
        if dependents := self._store.dependents(id_):
            hint = f"uninstall {' and '.join(dependents[:5])} first"
            raise Conflict(f"{id_} is required by {', '.join(dependents[:5])}", hint=hint)


class _MissingDependencies(Exception):
    """A package has dependencies that its index does not list. entry: the entry with its dependencies."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name)
        self.entry = entry


def _requires(entry: Entry, packages: Iterable[Installed], planned: Iterable[Installed]) -> tuple[str, ...]:
    """Find the packages that satisfy the dependencies: those of the plan first."""
    found: list[str] = []
    for name, wanted in entry.dependencies.items():
        first, others = ([each.entry for each in group if each.entry.language == name] for group in (planned, packages))
        answers = newest(first, wanted) or newest(others, wanted)
        if answers is None:
            raise DependencyConflict(f"{entry.name} requires {name} {wanted}, which is not installed")
        found.append(answers.name)
    return tuple(found)


def _write_description(installed: Installed, folder: Path, runtimes: bytes) -> Installed:
    """Write the remaining files of a package. Return its final description."""
    write_file(folder / RUNTIMES, runtimes)
    installed = structs.replace(installed, size_bytes=disk_usage(folder))
    write_file(folder / DESCRIPTION, msgspec.json.format(msgspec.json.encode(installed), indent=2))
    return installed


@contextmanager
def _os_errors_as_package_errors(name: str) -> Generator[None]:
    """Convert OSError to PackageError."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "free disk space, or set data_dir to another disk; nothing was changed"
            raise PackageError(f"{name}: the disk is full{where}", hint=hint) from None
        hint = "run as the user that owns data_dir" if error.errno in {errno.EACCES, errno.EPERM} else ""
        raise PackageError(f"{name}: {error.strerror or error}{where}", hint=hint) from None
