"""The server of `firebox serve`: one process, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from threading import Thread

import structlog
import uvloop

from firebox.domain.errors import SettingsError
from firebox.doors.http.turns import Turns
from firebox.doors.runner.grpc_server import serve_grpc
from firebox.engine.containers import open_containers
from firebox.engine.executor import LocalExecutor
from firebox.packages.repository.sources import sources_of
from firebox.runtimes.host_runtimes import HostScan
from firebox.runtimes.registry import Registry
from firebox.runtimes.toolchain_cache import Preparation
from firebox.sandbox.launcher.host_support import explain
from firebox.sandbox.launcher.launcher_start import StartedLauncher
from firebox.server.absent_modules import OF_NO_USE_TO_SERVERS, absent
from firebox.server.app import create_app
from firebox.server.http_server import HttpServer
from firebox.server.listener import is_loopback, url_of
from firebox.server.metrics import serve_metrics
from firebox.service.available_runtimes import open_store
from firebox.service.installed_runtimes import InstalledRuntimes
from firebox.service.packages import Packages
from firebox.service.retention import retention
from firebox.service.run_metrics import Metrics
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.stores import open_stores

STOP_GRACE_S = 10.0
"""How long running programs may go on after SIGTERM before they are cancelled."""
CONNECTIONS_GRACE_S = 5
"""How long answers may take to go out after that."""
GARBAGE_AFTER = 20_000
"""How many more objects make it worth to look for garbage: a run makes some hundred, of which hardly any are left in circles."""

_log = structlog.get_logger("firebox.serve")


def serve(settings: Settings, listener: socket.socket, scan: Future[HostScan], launcher: Future[StartedLauncher | None]) -> None:
    """Serve until SIGTERM or SIGINT. scan, launcher: under way; None for a launcher that cannot be used.

    Raises: what keeps a server from starting.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener, scan, launcher))


async def _serve(
    settings: Settings, listener: socket.socket, scan: Future[HostScan], launcher: Future[StartedLauncher | None]
) -> None:
    found = await asyncio.wrap_future(scan)
    store = open_store(settings)
    registry = Registry(found.runtimes)
    preparations = [each for each in found.preparations if settings.prepare_toolchains and not each.done]
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(open_stores(settings))
        await stack.enter_async_context(retention(stores, settings))
        started = await asyncio.wrap_future(launcher)
        executor = await stack.enter_async_context(LocalExecutor(settings, registry, hold=store.hold, launcher=started))
        installed = InstalledRuntimes(found.runtimes, store, registry, executor)
        await installed.reload()
        await stack.enter_async_context(installed.watched())
        _check_isolation(settings, listener, executor)
        containers = await stack.enter_async_context(open_containers(settings, executor.admission))
        packages = Packages(store, settings, registry, installed.reload)
        _warn_of_untrusted(settings)
        service = Service(executor, registry, settings, stores, containers, packages)
        for each in found.unprepared if settings.prepare_toolchains else ():
            service.metrics.note_slow_toolchain(each.language, each.version)
        turns = Turns()
        grpc_address = await stack.enter_async_context(serve_grpc(service, settings, turns))
        metrics_url = await stack.enter_async_context(serve_metrics(service, settings, turns))

        def announce() -> None:
            line = {
                "event": "ready",
                "url": url_of(listener),
                "pid": os.getpid(),
                "runtimes": len(registry.all()),
                "isolation": list(executor.isolation),
                **({"grpc": grpc_address} if grpc_address else {}),
                **({"metrics": metrics_url} if metrics_url else {}),
            }
            print(json.dumps(line), flush=True)
            gc.freeze()  # what is loaded now stays: looking through it again and again for garbage costs each run
            gc.set_threshold(GARBAGE_AFTER)
            gc.enable()  # afterwards: else all of it would be looked through now
            Thread(target=_prepare, args=(preparations, service.metrics), daemon=True, name="toolchains").start()

        await Server(service, settings, turns, announce).serve(sockets=[listener])


def _prepare(preparations: Iterable[Preparation], metrics: Metrics) -> None:
    """Make toolchains quick, one after the other. A thread that does not hold up the end of the server."""
    for preparation in preparations:
        problem = preparation.execute()
        if problem:
            _log.warning("a toolchain stays slow", language=preparation.language, problem=problem)
            metrics.note_slow_toolchain(preparation.language, preparation.version)
        else:
            _log.info("a toolchain is prepared", language=preparation.language, version=preparation.version)


class Server(HttpServer):
    """uvicorn, with an orderly stop: runs first, then answers, then connections."""

    def __init__(self, service: Service, settings: Settings, turns: Turns, announce: Callable[[], None]) -> None:
        with absent(*OF_NO_USE_TO_SERVERS):  # Litestar loads its plug-ins for them when it is asked for an application
            application = create_app(service, settings)
        super().__init__(application, application.bounds, turns, timeout_graceful_shutdown=CONNECTIONS_GRACE_S)
        self._service = service
        self._announce = announce
        self._stopping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening. The application hears of a stop at once as well, or its end would be logged as a failure."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop in order at the first SIGTERM or SIGINT, at once at the second."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._take_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _take_signal(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        else:
            self.force_exit = self.should_exit = True

    async def _stop(self) -> None:
        _log.info("stopping")
        await self._service.stop(STOP_GRACE_S)
        self.should_exit = True


def _warn_of_untrusted(settings: Settings) -> None:
    """Log which repositories are of no use yet."""
    if not any(source.on_network for source in sources_of(settings)):
        return
    # What reads signatures takes its time to load.
    from firebox.packages.repository.trust import how_to_trust, untrusted_sources

    for source in untrusted_sources(settings):
        hint = how_to_trust(source.name, signed=True)
        _log.warning("nothing can be installed from a repository: no key is trusted", repository=source.name, hint=hint)


def _check_isolation(settings: Settings, listener: socket.socket, executor: LocalExecutor) -> None:
    """Refuse to serve others on a host that lacks a layer of the boundary, and log what else is missing.

    Raises: SettingsError.
    """
    missing = [finding for finding in explain(executor.isolation, reasons=executor.isolation_reasons) if not finding.ok]
    for finding in missing:
        _log.warning("isolation layer missing", layer=finding.name, detail=finding.detail, hint=finding.hint)
    weak = [finding.name for finding in missing if finding.boundary]
    if weak and not is_loopback(listener.getsockname()[0]) and not settings.allow_weak_isolation:
        raise SettingsError(
            "host",
            settings.host,
            f"an address of this machine only, since this host lacks {', '.join(weak)}",
            source=settings.source("host"),
            hint="see `firebox doctor`, or set allow_weak_isolation (--allow-weak-isolation)",
        )
