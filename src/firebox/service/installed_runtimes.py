"""The runtimes of a server, from host and packages, updated while packages are installed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import structlog

from firebox.packages.installed.store import PackageStore
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime

POLL_INTERVAL_S = 1.0
"""Polling interval for changes by other processes, such as `firebox packages install`."""

_log = structlog.get_logger("firebox.packages")


class LayerHolder(Protocol):
    """Keeps package images mounted."""

    def forget_layers(self, layers: Iterable[str]) -> None:
        """Release the images of removed packages."""
        ...


class InstalledRuntimes:
    """Registers the runtimes of packages, ahead of those of the host."""

    def __init__(self, host: Sequence[Runtime], store: PackageStore, registry: Registry, holder: LayerHolder) -> None:
        self._host = tuple(host)
        self._store = store
        self._registry = registry
        self._holder = holder
        self._seen = store.stamp()
        self._reloading = asyncio.Lock()

    async def reload(self) -> None:
        """Read the installed packages and update the registry."""
        async with self._reloading:
            self._seen = self._store.stamp()
            packaged, problems = await asyncio.to_thread(self._store.runtimes)
            for problem in problems:
                _log.warning("package unusable", problem=problem)
            before = layers_of(self._registry.all())
            self._registry.renew([*packaged, *self._host])
            self._holder.forget_layers(before - layers_of(packaged))

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """Reload when another process changes the store, within the context."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            if self._store.stamp() != self._seen:
                try:
                    await self.reload()
                except OSError as error:
                    _log.warning("cannot read the installed packages", error=str(error))


def layers_of(runtimes: Iterable[Runtime]) -> set[str]:
    """Return all layers that the runtimes consist of."""
    return {layer for runtime in runtimes for layer in runtime.layers}
