"""The package store: installed packages, their runtimes, and which of them are in use.

    <folder>/installed/<language>-<version>/    package.json (`Installed`), pkg-info.json, runtimes.json, and either
                                                image.squashfs or root/
    <folder>/installing/                        staging folders and packages being removed
    <folder>/lock                               held while the set of installed packages changes

Nothing below `installed/` changes in place: a package is added and removed by a single rename.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from firebox.domain.errors import Conflict, NotFound, UnusablePackage
from firebox.packages.entry import Entry
from firebox.packages.file_locks import refers_to, try_lock, unlock
from firebox.runtimes.runtime import Runtime

DESCRIPTION = "package.json"
INFO = "pkg-info.json"
RUNTIMES = "runtimes.json"
IMAGE = "image.squashfs"
TREE = "root"

_DESCRIPTION_BYTES = 4 << 20
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Installed(Struct, frozen=True, kw_only=True):
    """An installed package. Immutable until it is uninstalled."""

    entry: Entry
    """The entry at the time of installation."""
    kind: Literal["image", "folder"]
    """image: `image.squashfs`, mounted by the kernel; folder: `root/`, unpacked."""
    installed_at: datetime
    size_bytes: int
    """Disk usage."""
    requires: tuple[str, ...]
    """Ids of its direct dependencies."""
    on_host: bool = False
    """Whether it is a Piston package, which is mounted over the folders of the host."""

    @property
    def id(self) -> str:
        """Folder name: `python-3.13.5`."""
        return self.entry.name

    @property
    def content(self) -> str:
        """Name of the image or folder with its files, below its folder."""
        return IMAGE if self.kind == "image" else TREE


class _Held(Struct):
    """A package in use by this process. Its folder is locked while `count` is positive."""

    name: str
    folder: int
    gate: int
    count: int = 0

    def close(self) -> None:
        os.close(self.gate)
        os.close(self.folder)


class PackageStore:
    """The installed packages in `<data_dir>/packages`, which need not exist. Shared by several processes; thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installed_folder = folder / "installed"
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        self._seen = -1
        self._packages: dict[str, Installed] = {}
        self._unreadable: dict[str, str] = {}
        """Why the description of a package cannot be read."""

    def stamp(self) -> int:
        """Return a number that changes whenever a package is added or removed. Costs one system call."""
        try:
            status = self.installed_folder.stat()
        except OSError:
            return 0
        return status.st_mtime_ns ^ status.st_ino

    def all(self) -> list[Installed]:
        """List the installed packages by name."""
        return list(self._refresh().values())

    def get(self, id: str) -> Installed | None:  # noqa: A002 - the word of the whole interface
        """Find an installed package by its id, `language-version`."""
        return self._refresh().get(id)

    def damaged(self) -> list[str]:
        """List the ids of packages with an unreadable description, which cannot be used."""
        with self._lock:
            self._refresh()
            return list(self._unreadable)

    def package_folder(self, id: str) -> Path:  # noqa: A002
        """Return the folder of a package, whether or not it exists."""
        return self.installed_folder / id

    def closure(self, id: str) -> list[Installed]:  # noqa: A002
        """List a package and its transitive dependencies, dependents first. Raises: NotFound naming a missing package."""
        packages = self._refresh()
        return [packages[each] for each in dependents_first(id, packages)]

    def layers(self, id: str) -> tuple[str, ...]:  # noqa: A002
        """List the layers of a root with this package, topmost first. Raises: NotFound, as `closure`."""
        return tuple(str(self.package_folder(each.id) / each.content) for each in self.closure(id))

    def dependents(self, id: str) -> list[str]:  # noqa: A002
        """List the ids of the packages that depend directly on this one."""
        return [each.id for each in self.all() if id in each.requires]

    def runtimes(self) -> tuple[list[Runtime], list[str]]:
        """Return the runtimes of all installed packages, and a message for each unusable package."""
        runtimes: list[Runtime] = []
        with self._lock:
            packages = list(self._refresh().values())
            words = list(self._unreadable.values())
        for package in packages:
            try:
                runtimes += self._runtimes_of(package)
            except NotFound as error:
                words.append(f"{package.id} needs {error.name}, which is not installed")
            except (OSError, ValueError, msgspec.DecodeError) as error:
                if self.package_folder(package.id).exists():
                    words.append(f"{package.id} cannot be read: {error}")
            except UnusablePackage as error:
                words.append(error.message)
        return runtimes, words

    @contextmanager
    def hold(self, id: str) -> Generator[None]:  # noqa: A002
        """Protect a package and its dependencies from removal. Cheap enough for every run. Raises: NotFound, Conflict."""
        held: list[_Held] = []
        try:
            for package in self.closure(id):
                held.append(self._acquire(package.id))  # noqa: PERF401 - a failure must release the ones taken before
            yield
        finally:
            for each in held:
                self._release(each)

    def _refresh(self) -> dict[str, Installed]:
        """Reload the descriptions after a change. The stamp is read first, so a concurrent change is detected the next time."""
        stamp = self.stamp()
        with self._lock:
            if stamp != self._seen:
                self._packages, self._unreadable = {}, {}
                for name in _folders(self.installed_folder):
                    try:
                        self._packages[name] = _read_description(self.installed_folder / name)
                    except (OSError, msgspec.DecodeError, ValueError) as error:
                        if self.package_folder(name).exists():  # otherwise it was removed since the listing
                            self._unreadable[name] = f"{name} cannot be read: {error}"
                self._seen = stamp
            return dict(self._packages)

    def _runtimes_of(self, package: Installed) -> Iterator[Runtime]:
        runtimes = msgspec.json.decode(_read(self.package_folder(package.id) / RUNTIMES), type=list[Runtime])
        if not runtimes:
            return
        needed = self.closure(package.id)
        if os.geteuid() != 0 and (image := next((each.id for each in needed if each.kind == "image"), None)):
            raise UnusablePackage(f"{package.id} cannot be used: only root can mount the image {image}; reinstall it")
        layers = self.layers(package.id)
        for runtime in runtimes:
            yield msgspec.structs.replace(
                runtime,
                mounts=(),
                layers=layers,
                on_host=all(each.on_host for each in needed),
                installed=package.id,
                package=runtime.package if runtime.language == package.entry.language else package.entry.language,
            )

    def _acquire(self, name: str) -> _Held:
        with self._lock:
            held = self._held.get(name)
            if held is None or not refers_to(held.folder, self.package_folder(name)):
                held = self._open(name)
            if not try_lock(held.gate, shared=True):
                if held.count == 0:
                    held.close()
                raise uninstalling(name)
            unlock(held.gate)
            if held.count == 0 and not (try_lock(held.folder, shared=True) and refers_to(held.folder, self.package_folder(name))):
                held.close()
                raise uninstalling(name)
            held.count += 1
            self._held[name] = held
            return held

    def _open(self, name: str) -> _Held:
        try:
            folder = os.open(self.package_folder(name), _OPEN_FOLDER)
            try:
                return _Held(name, folder, os.open(DESCRIPTION, _OPEN_FILE, dir_fd=folder))
            except BaseException:
                os.close(folder)
                raise
        except FileNotFoundError:
            raise NotFound("package", name) from None

    def _release(self, held: _Held) -> None:
        with self._lock:
            held.count -= 1
            if held.count == 0:
                if self._held.get(held.name) is held:
                    del self._held[held.name]
                held.close()


def uninstalling(name: str) -> Conflict:
    """Create the error for a package that is being uninstalled."""
    return Conflict(f"{name} is being uninstalled", hint="reinstall it afterwards")


def _read(file: Path) -> bytes:
    """Read a small file of an installed package. Raises: OSError; ValueError if it is too large."""
    with os.fdopen(os.open(file, _OPEN_FILE), "rb") as opened:
        data = opened.read(_DESCRIPTION_BYTES + 1)
    if len(data) > _DESCRIPTION_BYTES:
        raise ValueError(f"{file.name} is larger than {_DESCRIPTION_BYTES} bytes")
    return data


def _read_description(folder: Path) -> Installed:
    installed = msgspec.json.decode(_read(folder / DESCRIPTION), type=Installed)
    if installed.id != folder.name:
        raise ValueError(f"its description is for {installed.id}")
    return installed


def _folders(folder: Path) -> list[str]:
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        return sorted(each.name for each in found if each.is_dir(follow_symlinks=False))
    return []


def dependents_first(id: str, packages: Mapping[str, Installed]) -> list[str]:  # noqa: A002
    """Sort a package and its dependencies, dependents first. Raises: NotFound."""
    order: list[str] = []
    entered: set[str] = set()
    waiting = [(id, False)]
    while waiting:
        name, done = waiting.pop()
        if done:
            order.append(name)
        elif name not in entered:
            if name not in packages:
                raise NotFound("package", name)
            entered.add(name)
            waiting.append((name, True))
            waiting += [(each, False) for each in packages[name].requires]
    return order[::-1]
