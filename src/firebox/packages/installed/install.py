"""Installing and uninstalling: every change is complete or has not happened, however it ends.

Everything that is to be installed together is made ready first, in staging folders; then each gets its place by one rename,
dependencies first. A package leaves by one rename too.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from firebox.domain.errors import Conflict, DependencyConflict, NotFound, PackageError, UnusablePackage
from firebox.packages.entry import Entry, Progress, Report, no_report
from firebox.packages.file_locks import is_at
from firebox.packages.installed.environment_script import LauncherMaker, evaluate
from firebox.packages.installed.locks import wait_for
from firebox.packages.installed.metadata import check_architecture, check_package_name
from firebox.packages.installed.piston_archive import home_of, runtimes_of
from firebox.packages.installed.preparation import Prepared, describe, prepare
from firebox.packages.installed.staging import Room, Staging, in_thread
from firebox.packages.installed.store import DESCRIPTION, IMAGE, RUNTIMES, TREE, Installed, PackageStore, from_top, going_away
from firebox.packages.installed.tree import bring_all_to_disk, bring_files_to_disk, remove, size_of
from firebox.packages.versions import newest
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.settings.settings import Settings

if TYPE_CHECKING:
    from firebox.packages.repository.repositories import Repositories

_ROUNDS = 100
"""How often packages may turn out to need more than their index says."""
_GATE_PATIENCE_S = 1.0
"""Runs hold the gate for moments only; who has it longer is uninstalling too."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Installer:
    """Changes what is installed. Any number of them, in any number of processes, may be at work on one store.

    make_launcher: makes what runs the environment files of Piston's packages; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        store: PackageStore,
        repositories: Repositories,
        *,
        make_launcher: LauncherMaker | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._repositories = repositories
        self._staging = Staging(store.folder)
        self._make_launcher = make_launcher or (lambda: LauncherProcess(uid_base=settings.uid_base))

    async def install(self, entry: Entry, report: Report = no_report) -> list[Installed]:
        """Download, check and install a package and everything it needs that is not there yet.

        Returns what was installed, dependencies first. When it fails nothing has changed.
        Raises: Conflict("Already installed"); PackageError; SandboxError when its environment cannot be evaluated here.
        """
        return await self._install(entry, None, report)

    async def install_file(self, path: Path, report: Report = no_report) -> list[Installed]:
        """Install a package from a file that the operator vouches for; what it needs comes from the repositories.

        Returns and raises as `install`; NotFound when there is no such file.
        """
        path = await in_thread(path.absolute)
        if not await in_thread(path.is_file):
            raise NotFound("file", str(path))
        with _words_of_the_system(path.name):
            entry = await describe(path, self._settings.max_package_bytes)
        return await self._install(entry, path, report)

    async def uninstall(self, id: str, report: Report = no_report) -> None:  # noqa: A002 - the word of the whole interface
        """Remove a package once nobody uses it any more, a damaged one too. New runs with it are refused meanwhile.

        Raises: NotFound; Conflict when another package needs it, when it is being uninstalled already, or when it is still
        in use after `uninstall_wait_ms`: it stays then.
        """
        if self._store.get(id) is None and id not in self._store.damaged():
            raise NotFound("package", id)
        self._refuse_needed(id)
        report(Progress(package=id, step="uninstall", words="waiting for runs that use it"))
        with _words_of_the_system(id), self._opened(id) as (folder, gate):
            if gate is not None and not await wait_for(gate, patience_s=_GATE_PATIENCE_S):
                raise going_away(id)
            if not await wait_for(folder, patience_s=self._settings.uninstall_wait_ms / 1000):
                hint = "wait until they have ended, or raise uninstall_wait_ms"
                raise Conflict(f"{id} is used by runs that have not ended", hint=hint)
            trash = self._staging.trash(id)
            async with self._staging.changing():
                if not is_at(folder, self._store.place(id)):
                    raise NotFound("package", id)
                self._refuse_needed(id)
                await in_thread(lambda: self._move_away(id, trash))
            # Its lock is still ours, so nobody else sweeps it meanwhile.
            await in_thread(lambda: remove(trash))
        report(Progress(package=id, step="uninstall", done=1, total=1, words="removed"))

    async def _install(self, entry: Entry, file: Path | None, report: Report) -> list[Installed]:
        with _words_of_the_system(entry.name):
            return await self._install_in_rounds(entry, file, report)

    async def _install_in_rounds(self, entry: Entry, file: Path | None, report: Report) -> list[Installed]:
        amended: dict[str, Entry] = {}
        for _ in range(_ROUNDS):
            self._refuse_installed(entry)
            plan = await self._plan(entry, amended)
            for each in plan:
                check_package_name(each.language, each.version)
                check_architecture(each.name, each.architecture)
            try:
                return await self._install_all(plan, entry, file, report)
            except _NeedsMore as more:
                amended[more.entry.name] = more.entry
        raise DependencyConflict(f"{entry.name} needs packages that need packages, more than {_ROUNDS} times over")

    async def _plan(self, entry: Entry, amended: Mapping[str, Entry]) -> list[Entry]:
        """Ask what has to be installed, also for packages whose index did not say what they need."""
        installed = [each.entry for each in self._store.all()]
        plan: dict[str, Entry] = {}
        for each in await self._repositories.plan(amended.get(entry.name, entry), installed):
            if each.name in amended and each.name != entry.name:
                plan |= {other.name: other for other in await self._repositories.plan(amended[each.name], installed)}
            else:
                plan.setdefault(each.name, each)
        return list(plan.values())

    async def _install_all(self, plan: Sequence[Entry], entry: Entry, file: Path | None, report: Report) -> list[Installed]:
        async with AsyncExitStack() as stack:
            for name in sorted(each.name for each in plan):  # everybody in the same order, or two would wait for each other
                await stack.enter_async_context(self._staging.alone_with(name))
            self._refuse_installed(entry)
            missing = [each for each in plan if self._store.get(each.name) is None]
            ready: dict[str, tuple[Room, Installed]] = {}
            downloads: list[Path] = []
            for each in missing:
                with _words_of_the_system(each.name):
                    room = await stack.enter_async_context(self._room(each.name))
                    source = file if file is not None and each.name == entry.name else await self._fetch(each, report)
                    prepared = await self._prepare(source, room, each, report)
                    if source.parent == self._staging.downloads:
                        downloads.append(source)
                    ready[each.name] = room, await self._complete(each, prepared, room, ready, report)
            async with self._staging.changing():
                await in_thread(lambda: self._commit(list(ready.values())))
            for download in downloads:
                await in_thread(partial(download.unlink, missing_ok=True))
            for name in ready:
                report(Progress(package=name, step="install", done=1, total=1, words="installed"))
            return [installed for _room, installed in ready.values()]

    @asynccontextmanager
    async def _room(self, name: str) -> AsyncGenerator[Room]:
        async with self._staging.changing():
            room = self._staging.room(name)
        try:
            yield room
        finally:
            with suppress(OSError):  # the next change sweeps it
                await in_thread(room.close)

    async def _fetch(self, entry: Entry, report: Report) -> Path:
        from firebox.packages.download.download import fetch

        return await fetch(entry, self._staging.downloads, self._settings, report)

    async def _prepare(self, source: Path, room: Room, entry: Entry, report: Report) -> Prepared:
        downloaded = source.parent == self._staging.downloads
        try:
            prepared = await prepare(source, room.path, entry, self._settings.max_package_bytes, report, may_link=downloaded)
        except UnusablePackage:
            if downloaded:
                await in_thread(lambda: source.unlink(missing_ok=True))
            raise
        if prepared.info.dependencies and not entry.dependencies:
            raise _NeedsMore(structs.replace(entry, dependencies=prepared.info.dependencies))
        return prepared

    async def _complete(
        self,
        entry: Entry,
        prepared: Prepared,
        room: Room,
        ready: Mapping[str, tuple[Room, Installed]],
        report: Report,
    ) -> Installed:
        """Do what needs the other packages: the environment, the runtimes of Piston's packages, the description."""
        packages = {each.id: each for each in self._store.all()} | {id_: each for id_, (_room, each) in ready.items()}
        installed = Installed(
            entry=entry,
            kind=prepared.kind,
            installed_at=datetime.now(UTC),
            size_bytes=0,
            requires=_requires(entry, list(packages.values()), [each.entry for _room, each in ready.values()]),
            on_host=prepared.piston_tree is not None,
        )
        packages[installed.id] = installed
        runtimes = prepared.runtimes
        if prepared.piston_tree is not None:
            report(Progress(package=entry.name, step="environment"))
            places = {id_: staged.path for id_, (staged, _each) in ready.items()} | {installed.id: room.path}
            stack = [packages[each] for each in from_top(installed.id, packages)]
            environment = await evaluate(
                entry.name,
                [home_of(each.entry.language, each.entry.version) for each in stack],
                [
                    str(places.get(each.id, self._store.place(each.id)) / (IMAGE if each.kind == "image" else TREE))
                    for each in stack
                ],
                on_host=all(each.on_host for each in stack),
                make_launcher=self._make_launcher,
            )
            tree = prepared.piston_tree
            runtimes = await in_thread(lambda: runtimes_of(prepared.info, tree, environment))
        report(Progress(package=entry.name, step="install"))
        return await in_thread(lambda: _describe(installed, room.path, msgspec.json.encode(runtimes)))

    def _commit(self, ready: Sequence[tuple[Room, Installed]]) -> None:
        """Give every package its place. Blocks; to be called while nothing else changes."""
        there = {each.id for each in self._store.all()}
        for _room, installed in ready:
            if installed.id in there:
                raise Conflict("Already installed")
            for needed in installed.requires:
                if needed not in there:
                    raise Conflict(f"{needed}, which {installed.id} needs, was uninstalled meanwhile", hint="install it again")
            there.add(installed.id)
        for room, installed in ready:
            if installed.kind == "image":
                bring_files_to_disk(room.path)
            else:
                bring_all_to_disk(room.path)
        with self._staging.noticed():
            for room, installed in ready:
                target = self._store.place(installed.id)
                if os.path.lexists(target):  # damaged, else it were in the list
                    target.rename(self._staging.trash(installed.id))
                room.become(target)

    def _move_away(self, id_: str, trash: Path) -> None:
        with self._staging.noticed():
            self._store.place(id_).rename(trash)

    @contextmanager
    def _opened(self, id_: str) -> Generator[tuple[int, int | None]]:
        """Open a package's folder and its gate, see `PackageStore.hold`. A damaged package may have lost its gate.

        Raises: NotFound.
        """
        try:
            folder = os.open(self._store.place(id_), _OPEN_FOLDER)
        except FileNotFoundError:
            raise NotFound("package", id_) from None
        try:
            gate: int | None = None
            with suppress(FileNotFoundError):
                gate = os.open(DESCRIPTION, _OPEN_FILE, dir_fd=folder)
            try:
                yield folder, gate
            finally:
                if gate is not None:
                    os.close(gate)
        finally:
            os.close(folder)

    def _refuse_installed(self, entry: Entry) -> None:
        if self._store.get(entry.name) is not None:
            raise Conflict("Already installed")

    def _refuse_needed(self, id_: str) -> None:
        if users := self._store.users(id_):
            hint = f"uninstall {' and '.join(users[:5])} first"
            raise Conflict(f"{id_} is needed by {', '.join(users[:5])}", hint=hint)


class _NeedsMore(Exception):
    """A package needs others that its index did not tell of. entry: the same, with its dependencies."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name)
        self.entry = entry


def _requires(entry: Entry, packages: Sequence[Installed], planned: Sequence[Entry]) -> tuple[str, ...]:
    """Find which packages answer to the dependencies: those of the plan before others."""
    found: list[str] = []
    for name, wanted in entry.dependencies.items():
        answers = newest([each for each in planned if each.language == name], wanted) or newest(
            [each.entry for each in packages if each.entry.language == name], wanted
        )
        if answers is None:
            raise DependencyConflict(f"{entry.name} needs {name} {wanted}, which is not installed")
        found.append(answers.name)
    return tuple(found)


def _describe(installed: Installed, folder: Path, runtimes: bytes) -> Installed:
    """Write the last files of a package. Returns its final description."""
    (folder / RUNTIMES).write_bytes(runtimes)
    installed = structs.replace(installed, size_bytes=size_of(folder))
    (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(installed), indent=2))
    for name in (RUNTIMES, DESCRIPTION):
        (folder / name).chmod(0o644)
    return installed


@contextmanager
def _words_of_the_system(name: str) -> Generator[None]:
    """Turn what the system says into words about the package."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "make room on that disk, or set data_dir to another one; nothing was changed"
            raise PackageError(f"{name}: the disk is full{where}", hint=hint) from None
        hint = "packages are changed by the user who owns data_dir" if error.errno in {errno.EACCES, errno.EPERM} else ""
        raise PackageError(f"{name}: {error.strerror or error}{where}", hint=hint) from None
