"""The runtimes of a server: what the host has and what the installed packages bring, kept true while packages come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog

from firebox.packages.installed.store import PackageStore
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime

LOOK_EVERY_S = 1.0
"""How often the store is looked at: another process, such as `firebox packages install`, may have changed it."""

_log = structlog.get_logger("firebox.packages")


class LayerHolder(Protocol):
    """Whoever mounts the images of packages."""

    def forget_layers(self, layers: Iterable[str]) -> None:
        """Let go of images whose packages are gone."""
        ...


class InstalledRuntimes:
    """Puts the runtimes of packages into a registry, before those of the host."""

    def __init__(self, host: Sequence[Runtime], store: PackageStore, registry: Registry, holder: LayerHolder) -> None:
        self._host = tuple(host)
        self._store = store
        self._registry = registry
        self._holder = holder
        self._seen = store.stamp()
        self._reloading = asyncio.Lock()

    async def reload(self) -> None:
        """Read what is installed and have the registry tell of it."""
        async with self._reloading:
            self._seen = self._store.stamp()
            packaged, problems = await asyncio.to_thread(self._store.runtimes)
            for problem in problems:
                _log.warning("a package cannot be used", problem=problem)
            before = layers_of(self._registry.all())
            self._registry.renew([*packaged, *self._host])
            self._holder.forget_layers(before - layers_of(packaged))

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """Reload whenever another process has changed the store, until the context is left."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._store.stamp() != self._seen:
                try:
                    await self.reload()
                except OSError as error:
                    _log.warning("the installed packages cannot be read", error=str(error))


def layers_of(runtimes: Iterable[Runtime]) -> set[str]:
    """Give every layer that one of the runtimes is made of."""
    return {layer for runtime in runtimes for layer in runtime.layers}
