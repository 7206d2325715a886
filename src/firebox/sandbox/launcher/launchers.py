"""Several launchers with the face of one: a machine with many cores can use more sandboxes than one process can make."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.spec import SandboxSpec
from firebox.sandbox.template import Template


class Launchers:
    """Has each sandbox made by the launcher that has the fewest. launchers: at least one, not started."""

    def __init__(self, launchers: Iterable[LauncherProcess]) -> None:
        self._all = tuple(launchers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The isolation layers of every sandbox; known once started."""
        return self._all[0].layers

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why better kinds of cgroups are not used."""
        return self._all[0].reasons

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(each.pid for each in self._all if each.pid is not None)

    @property
    def alive(self) -> int:
        """Sandboxes that exist, ready or running."""
        return sum(each.alive for each in self._all)

    @property
    def restarts(self) -> int:
        """How often one had to be started again."""
        return sum(max(each.starts - 1, 0) for each in self._all)

    async def start(self) -> None:
        """Start all of them. Raises: SandboxFailure when one cannot make a sandbox; some may be started then: close."""
        await asyncio.gather(*(each.start() for each in self._all))

    async def make(self, specification: SandboxSpec, template: Template | None = None) -> Sandbox:
        """Make a sandbox. template: from which its program is restored ahead. Raises: SandboxFailure."""
        return await min(self._all, key=lambda each: each.alive).make(specification, template)

    def forget(self, layer: str) -> None:
        """Have all let go of an image whose package is going away. Returns at once."""
        for each in self._all:
            each.forget(layer)

    async def close(self) -> None:
        """End them and with them every sandbox; wait until they are gone."""
        await asyncio.gather(*(each.close() for each in self._all))
