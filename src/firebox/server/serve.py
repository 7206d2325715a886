"""The server behind `firebox serve`."""

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

from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.listening_socket import is_loopback, url_of
from firebox.doors.runner.grpc_logs import silence
from firebox.engine.background import background
from firebox.engine.executor import LocalExecutor
from firebox.packages.repository.sources import read_sources
from firebox.runtimes.host_runtimes import HostScan
from firebox.runtimes.registry import Registry
from firebox.runtimes.toolchain_cache import Preparation
from firebox.sandbox.launcher.host_support import explain
from firebox.sandbox.launcher.launcher_start import StartedLauncher
from firebox.server.absent_modules import UNUSED_BY_SERVERS, absent
from firebox.server.app import create_app
from firebox.server.http_server import HttpServer
from firebox.server.metrics import serve_metrics
from firebox.service.available_runtimes import open_store
from firebox.service.installed_runtimes import InstalledRuntimes
from firebox.service.packages import Packages
from firebox.service.retention import keep_removing
from firebox.service.run_metrics import Metrics
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.stores import open_stores

STOP_GRACE_S = 10.0
"""How long runs may continue after SIGTERM before they are cancelled."""
CONNECTIONS_GRACE_S = 5
"""How long responses may take to finish after that."""
GARBAGE_AFTER = 20_000
"""Threshold of the first garbage collector generation: a run creates some hundred objects, hardly any of them in cycles."""

_log = structlog.get_logger("firebox.serve")


def serve(settings: Settings, listener: socket.socket, scan: Future[HostScan], launcher: Future[StartedLauncher | None]) -> None:
    """Serve until SIGTERM or SIGINT. scan, launcher: already under way; the launcher is None if it cannot be used. Raises:
    SettingsError, OSError and other failures at startup.
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
        await stack.enter_async_context(background(keep_removing(stores, settings)))
        started = await asyncio.wrap_future(launcher)
        containers = None
        if settings.docker_url:  # aiohttp and aiodocker are slow to import: only a server with a container engine pays for them
            from firebox.engine.backends.docker_backend import open_docker

            containers = await stack.enter_async_context(open_docker(settings.docker_url))
        executor = await stack.enter_async_context(
            LocalExecutor(settings, registry, hold=store.hold, launcher=started, containers=containers)
        )
        installed = InstalledRuntimes(found.runtimes, store, registry, executor)
        await installed.reload()
        await stack.enter_async_context(background(installed.watch()))
        _check_isolation(settings, listener, executor)
        packages = Packages(store, settings, registry, installed.refresh)
        _warn_of_untrusted(settings)
        service = Service(executor, registry, settings, stores, packages)
        for each in found.unprepared if settings.prepare_toolchains else ():
            service.metrics.note_slow_toolchain(each.language, each.version)
        turns = FairScheduler()
        grpc_address = ""
        if settings.grpc_port >= 0:  # the library takes 12 MB
            silence()
            from firebox.doors.runner.servicer import open_server

            grpc_address = await stack.enter_async_context(open_server(service, settings, turns))
        metrics_url = await stack.enter_async_context(serve_metrics(service, settings, turns))

        def announce() -> None:
            line = {
                "event": "ready",
                "url": url_of(listener),
                "pid": os.getpid(),
                "runtimes": len(registry.all()),
                "isolation": list(executor.launchers.layers),
                **({"grpc": grpc_address} if grpc_address else {}),
                **({"metrics": metrics_url} if metrics_url else {}),
            }
            print(json.dumps(line), flush=True)
            gc.freeze()  # what is loaded now stays: scanning it again and again would slow every run
            gc.set_threshold(GARBAGE_AFTER)
            gc.enable()  # only now, or the collector would scan all of it first
            Thread(target=_prepare, args=(preparations, service.metrics), daemon=True, name="toolchains").start()

        await Server(service, settings, turns, announce).serve(sockets=[listener])


def _prepare(preparations: Iterable[Preparation], metrics: Metrics) -> None:
    """Prepare toolchains one by one, in a daemon thread that does not delay shutdown."""
    for preparation in preparations:
        problem = preparation.execute()
        if problem:
            _log.warning("toolchain not prepared", language=preparation.language, problem=problem)
            metrics.note_slow_toolchain(preparation.language, preparation.version)
        else:
            _log.info("toolchain prepared", language=preparation.language, version=preparation.version)


class Server(HttpServer):
    """uvicorn with an orderly shutdown: runs first, then responses, then connections."""

    def __init__(self, service: Service, settings: Settings, turns: FairScheduler, announce: Callable[[], None]) -> None:
        with absent(*UNUSED_BY_SERVERS):  # creating the application imports plug-ins for them
            application = create_app(service, settings)
        super().__init__(application, application.limits, turns, announce, timeout_graceful_shutdown=CONNECTIONS_GRACE_S)
        self._service = service
        self._stopping: asyncio.Task[None] | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections. On a forced exit end the lifespan too: otherwise it would be logged as a failure."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Shut down in order on the first SIGTERM or SIGINT, immediately on the second."""
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
    """Log the repositories without a trusted key."""
    if not any(source.on_network for source in read_sources(settings)):
        return
    # Imported late: the OpenPGP library is slow to load.
    from firebox.packages.repository.signatures import trust_hint, untrusted_sources

    for source in untrusted_sources(settings):
        hint = trust_hint(source.name, signed=True)
        _log.warning("nothing can be installed from a repository: no key is trusted", repository=source.name, hint=hint)


def _check_isolation(settings: Settings, listener: socket.socket, executor: LocalExecutor) -> None:
    """Log missing isolation layers; refuse to serve a public address without those of the boundary. Raises: SettingsError."""
    missing = [finding for finding in explain(executor.launchers.layers, reasons=executor.launchers.reasons) if not finding.ok]
    for finding in missing:
        _log.warning("isolation layer missing", layer=finding.name, detail=finding.detail, hint=finding.hint)
    weak = [finding.name for finding in missing if finding.boundary]
    if weak and not is_loopback(listener.getsockname()[0]) and not settings.allow_weak_isolation:
        allowed = f"an address of this machine only, since this host lacks {', '.join(weak)}"
        hint = "see `firebox doctor`, or set allow_weak_isolation (--allow-weak-isolation)"
        raise settings.refused("host", allowed=allowed, hint=hint)
