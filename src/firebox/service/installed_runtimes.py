"""The runtimes of a server, from host and packages, updated while packages are installed and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import structlog

from firebox.engine.executor import LocalExecutor
from firebox.packages.installed.store import PackageStore
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime

POLL_INTERVAL_S = 1.0
"""Polling interval for changes by other processes, such as `firebox packages install`."""

_log = structlog.get_logger("firebox.packages")


class InstalledRuntimes:
    """Registers the runtimes of packages, ahead of those of the host."""

    def __init__(self, host: Sequence[Runtime], store: PackageStore, registry: Registry, executor: LocalExecutor) -> None:
        self._host = tuple(host)
        self._store = store
        self._registry = registry
        self._executor = executor
        self._seen = store.stamp()
        self._reloading = asyncio.Lock()

    async def reload(self) -> None:
        """Read the installed packages and update the registry. Raises: OSError."""
        async with self._reloading:
            self._seen = self._store.stamp()
            packaged, problems = await asyncio.to_thread(self._store.runtimes)
            for problem in problems:
                _log.warning("package unusable", problem=problem)
            before = _layers_of(self._registry.all())
            self._registry.renew([*packaged, *self._host])
            self._executor.forget_layers(before - _layers_of(packaged))

    async def refresh(self) -> None:
        """Reload, or log why that is not possible now: the store is read again later."""
        try:
            await self.reload()
        except OSError as error:
            _log.warning("cannot read the installed packages", error=str(error))

    async def watch(self) -> None:
        """Reload whenever another process changes the store."""
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            if self._store.stamp() != self._seen:
                await self.refresh()


def _layers_of(runtimes: Iterable[Runtime]) -> set[str]:
    return {layer for runtime in runtimes for layer in runtime.layers}
