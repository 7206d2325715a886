"""Staging and trash folders of the package store, on the same file system as the installed packages.

A staging folder is locked while in use. An unlocked one was left behind by a killed process.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TypeVar

from firebox.files.atomic_write import sync_folder
from firebox.packages.file_locks import lock_file_async, try_lock, unlock
from firebox.packages.installed.tree import FILE, FOLDER, opened, remove

_Made = TypeVar("_Made")


class StagingFolder:
    """A locked staging folder below `installing/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        self._descriptor = os.open(path, FOLDER)
        try_lock(self._descriptor)

    def close(self) -> None:
        """Remove the folder with its contents, unless it was moved into place. Blocks."""
        try:
            remove(self.path)
        finally:
            os.close(self._descriptor)

    def move_to(self, target: Path) -> None:
        """Move the folder into place. The store lock must be held. Raises: OSError."""
        unlock(self._descriptor)  # otherwise it would look like a package that is being uninstalled
        try:
            self.path.rename(target)
        except BaseException:
            try_lock(self._descriptor)
            raise


class Staging:
    """The writable side of a package store. folder: `<data_dir>/packages`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.installed = folder / "installed"
        self.downloads = folder / "downloads"
        self._installing = folder / "installing"

    @asynccontextmanager
    async def store_lock(self) -> AsyncGenerator[None]:
        """Hold the store lock, which guards the set of installed packages. Sweep leftovers first. Raises: OSError."""
        await in_thread(self._make_folders)
        async with lock_file_async(self._folder / "lock"):
            await in_thread(self._sweep)
            yield

    @asynccontextmanager
    async def package_lock(self, id: str) -> AsyncGenerator[None]:  # noqa: A002 - the word of the whole interface
        """Hold the lock for preparing this package. Raises: OSError."""
        await in_thread(self._make_folders)
        async with lock_file_async(self._installing / f"{id}.lock", keep=False):
            yield

    @asynccontextmanager
    async def new_folder(self, id: str) -> AsyncGenerator[StagingFolder]:  # noqa: A002
        """Create a staging folder for a package, and remove it afterwards unless it was moved. Raises: OSError."""
        async with self.store_lock():
            folder = StagingFolder(self._installing / f"{id}.{secrets.token_hex(6)}")
        try:
            yield folder
        finally:
            with suppress(OSError):  # the next change sweeps it
                await in_thread(folder.close)

    def trash(self, id: str) -> Path:  # noqa: A002
        """Return a path to which an installed package can be moved for deletion."""
        return self._installing / f"{id}.{secrets.token_hex(6)}.removed"

    @contextmanager
    def visible_change(self) -> Generator[None]:
        """Make a change visible to other processes: the mtime of the folder strictly increases. Blocks."""
        before_ns = self.installed.stat().st_mtime_ns
        try:
            yield
        finally:
            # Kernel timestamps have the granularity of the timer tick, so two changes may get the same one.
            now_ns = max(time.time_ns(), before_ns + 1)
            os.utime(self.installed, ns=(now_ns, now_ns))
            sync_folder(self.installed)

    def _make_folders(self) -> None:
        for folder in (self._folder, self.installed, self._installing, self.downloads):
            if not folder.is_dir():
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                folder.chmod(0o755)

    def _sweep(self) -> None:
        for path in self._installing.iterdir():
            with suppress(FileNotFoundError), opened(path, FILE | os.O_NONBLOCK) as descriptor:
                if try_lock(descriptor):
                    remove(path)


async def in_thread(function: Callable[[], _Made], stop: Event | None = None) -> _Made:
    """Run a blocking function in a thread and wait for its end even when cancelled, which sets `stop` for it to check."""
    running = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # retrieved, so that asyncio does not log it
        raise
