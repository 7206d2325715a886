"""Stages in containers of a real container engine (Docker or Podman), over its API.

    create -> attach -> start -> write standard input, read output as it arrives -> exit code -> remove

A container is removed when its stage is closed and, where the engine could not be reached then, by the sweeper.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import structlog
from ulid import ULID

from firebox.domain.errors import FireboxError
from firebox.domain.limits import Limits, StageName
from firebox.domain.model import Image
from firebox.engine.backends.backend import Backend
from firebox.engine.backends.docker_attachment import Attachment
from firebox.engine.backends.docker_engine import ContainerEngine
from firebox.engine.backends.docker_sweeper import Sweeper, in_use, labels_of_a_run
from firebox.engine.plan import Plan
from firebox.sandbox.instance.input_writer import wake
from firebox.sandbox.spec import Command, Event, Exit, Started

TEMPORARY_BYTES = 256 * 1024 * 1024
"""Size of /tmp where the root is read-only; it counts as memory too."""

_log = structlog.get_logger("firebox.containers")

T = TypeVar("T")


@asynccontextmanager
async def open_docker(url: str) -> AsyncGenerator[DockerBackend]:
    """Connect to a container engine, and remove what earlier servers left there.

    An engine that does not answer does not keep a server from starting: its runs fail until it does.
    """
    engine = ContainerEngine(url)
    sweeper = Sweeper(engine)
    try:
        async with sweeper.sweeping():
            yield DockerBackend(engine, sweeper)
    finally:
        await engine.close()


class DockerBackend(Backend["ContainerStage"]):
    """Runs the image of a job in a container of its own."""

    leave_within_s = 5.0  # the removal of a container goes on after that, and keeps the slot

    def __init__(self, engine: ContainerEngine, sweeper: Sweeper) -> None:
        self._engine = engine
        self._sweeper = sweeper

    async def open(self, plan: Plan, stage: StageName, command: Command) -> tuple[ContainerStage, Command]:
        del stage
        assert plan.job.image is not None  # noqa: S101 - the executor sends other jobs elsewhere
        configuration = configuration_of(plan.job.image, plan.run_limits, command)
        return ContainerStage(self._engine, self._sweeper, configuration), command


class ContainerStage:
    """One container, from its creation to its removal."""

    def __init__(self, engine: ContainerEngine, sweeper: Sweeper, configuration: dict[str, Any]) -> None:
        self.name = f"firebox-{ULID()}".lower()
        self._engine = engine
        self._sweeper = sweeper
        self._configuration = configuration
        self._creating: asyncio.Task[None] | None = None
        self._removing: asyncio.Task[None] | None = None
        self._signals: set[asyncio.Task[None]] = set()
        self._attachment: Attachment | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._killed_by = ""
        self._started_at_s = 0.0
        self._ended_at_s = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def events(self, command: Command) -> AsyncGenerator[Event]:
        status: int | None = None
        feeding: asyncio.Task[None] | None = None
        try:
            attachment = await self._unless_killed(self._begin(command))
            if attachment is not None:
                yield Started()
                if command.stdin:
                    feeding = asyncio.create_task(attachment.feed(command.stdin))
                async with aclosing(attachment.output()) as pieces:
                    async for output in pieces:
                        if self._killed_by:
                            break
                        yield output
                if not self._killed_by:
                    # A program may close its streams and go on, until its time is over.
                    status = await self._unless_killed(self._engine.exit_code(self.name))
            self._end()
            wall_ms = (self._ended_at_s - self._started_at_s) * 1000 if self._started_at_s else 0.0
            yield Exit(status=status, signal=None, killed_by=self._killed_by, wall_ms=wall_ms)
        finally:
            self._end()
            if self._clock is not None:
                self._clock.cancel()
            if feeding is not None:
                feeding.cancel()

    async def write_stdin(self, data: bytes) -> None:
        if self._attachment is not None:
            await self._attachment.write(data)

    def close_stdin(self) -> None:
        if self._attachment is not None:
            self._attachment.write_eof()

    def signal(self, number: int) -> None:
        """Send a signal to the first process of the container."""
        if self._started_at_s and not self._killed_by:
            sending = asyncio.create_task(self._send_signal(signal.Signals(number).name))
            self._signals.add(sending)
            sending.add_done_callback(self._signals.discard)

    def resize(self, rows: int, columns: int) -> None:
        """Do nothing: there is no terminal."""

    def kill(self, why: str) -> None:
        if not self.ended.done():
            self._killed_by = why
            self._end()
            if self._attachment is not None:
                self._attachment.close()
            self._remove_soon()

    def close(self) -> Awaitable[object] | None:
        if self._attachment is not None:
            self._attachment.close()
        self._remove_soon()
        return self._removing

    async def _begin(self, command: Command) -> Attachment:
        """Create and start the container. Raises: PartUnavailable, NotFound, ContainerError."""
        in_use.add(self.name)
        # The engine goes on creating a container when we hang up: `_remove` waits for that.
        self._creating = asyncio.create_task(self._engine.create(self.name, self._configuration))
        await asyncio.shield(self._creating)
        has_stdin = bool(command.stdin) or command.interactive
        self._attachment = await self._engine.attach(self.name, stdin=has_stdin)
        await self._engine.start(self.name)
        loop = asyncio.get_running_loop()
        self._started_at_s = loop.time()
        self._clock = loop.call_later(command.wall_ms / 1000, self.kill, "wall_time")
        return self._attachment

    async def _unless_killed(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do some work and return its result; once the container is killed, abandon it and return None."""
        task = asyncio.create_task(work)
        ends: set[asyncio.Future[Any]] = {task, self.ended}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
        if not self._killed_by:
            return task.result()
        await asyncio.wait({task})
        _ = task.cancelled() or task.exception()  # seen: it was killed, whatever else went wrong
        return None

    def _end(self) -> None:
        """Record the end of the wall time, the first time."""
        self._ended_at_s = self._ended_at_s or asyncio.get_running_loop().time()
        wake(self.ended)

    async def _send_signal(self, name: str) -> None:
        try:
            await self._engine.signal(self.name, name)
        except FireboxError as error:  # it has just ended, or the end of the output shows how
            _log.info("a signal was not sent", container=self.name, code=error.code, message=error.message)

    def _remove_soon(self) -> None:
        if self._removing is None and self._creating is not None:
            self._removing = asyncio.create_task(self._remove(self._creating))

    async def _remove(self, creating: asyncio.Task[None]) -> None:
        """Remove the container, once it is there. What the engine made of a creation that failed is not known."""
        removed = False
        try:
            await asyncio.wait({creating})
            if not creating.cancelled():
                creating.exception()  # retrieved: the task that waited for it may have been cancelled
            await self._engine.remove(self.name)
            removed = True
        except FireboxError as error:
            _log.warning("removing a container failed", container=self.name, code=error.code, message=error.message)
        finally:
            in_use.discard(self.name)
            if not removed:
                self._sweeper.wake()


def configuration_of(image: Image, limits: Limits, command: Command) -> dict[str, Any]:
    """Return a configuration without network, privilege or output on disk. Source: Docker Engine API, "Create a container"."""
    stdin = bool(command.stdin) or command.interactive
    return {
        "Image": image.name,
        **({"Cmd": list(command.argv)} if command.argv else {}),
        **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {}),
        **({"User": image.user} if image.user else {}),
        **({"Hostname": image.hostname} if image.hostname else {}),
        "Labels": labels_of_a_run(limits.wall_ms),
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "Tty": False,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,
            # Counted per container; the process limit of a user would be shared by all containers of that user.
            "PidsLimit": limits.processes,
            "Ulimits": [
                {"Name": "nofile", "Soft": max(1, limits.open_files * 9 // 10), "Hard": limits.open_files},
                {"Name": "stack", "Soft": limits.stack_bytes, "Hard": limits.stack_bytes},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "ReadonlyRootfs": image.read_only,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={TEMPORARY_BYTES}"} if image.read_only else {},  # noqa: S108
            "IpcMode": "private",
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
        },
    }
