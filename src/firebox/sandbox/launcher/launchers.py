"""Several launchers with the interface of one: on a machine with many cores a single process cannot create enough sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from firebox.sandbox.instance.sandbox import Sandbox, Template
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.spec import SandboxSpec


class Launchers:
    """Creates each sandbox in the launcher with the fewest. launchers: at least one, not started."""

    def __init__(self, launchers: Iterable[LauncherProcess]) -> None:
        self._all = tuple(launchers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The isolation layers of every sandbox; known after the start."""
        return self._all[0].layers

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a better cgroup version is not used."""
        return self._all[0].reasons

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(each.pid for each in self._all if each.pid is not None)

    @property
    def alive(self) -> int:
        """Number of sandboxes, idle or running."""
        return sum(each.alive for each in self._all)

    @property
    def restarts(self) -> int:
        """Number of restarts of launchers."""
        return sum(max(each.starts - 1, 0) for each in self._all)

    async def start(self) -> None:
        """Start all launchers. Raises: SandboxFailure when one cannot create a sandbox; `close` ends those that have started."""
        await asyncio.gather(*(each.start() for each in self._all))

    async def make(self, spec: SandboxSpec, template: Template | None = None) -> Sandbox:
        """Create a sandbox. template: to restore its prestarted program from. Raises: SandboxFailure."""
        return await min(self._all, key=lambda each: each.alive).make(spec, template)

    def forget(self, layer: str) -> None:
        """Have all launchers unmount an image whose package is being removed. Returns at once."""
        for each in self._all:
            each.forget(layer)

    async def close(self) -> None:
        """End all launchers with their sandboxes, and wait until they are gone."""
        await asyncio.gather(*(each.close() for each in self._all))
