"""One program in one container, from its making to its removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import structlog
from ulid import ULID

from firebox.domain.errors import FireboxError
from firebox.domain.limits import OutputMode, default_stack_bytes
from firebox.domain.model import Chunk, StreamName
from firebox.engine.container_attachment import Attachment
from firebox.engine.container_engine import ContainerEngine
from firebox.engine.container_spec import ContainerSpec
from firebox.engine.container_sweeper import labels_of_a_run

EXIT_GRACE_S = 5.0
"""How long the engine may take to notice that a program has ended whose streams have."""
TEMPORARY_BYTES = 256 * 1024 * 1024
"""Size of /tmp where the root is read-only; it counts as memory too."""

_log = structlog.get_logger("firebox.containers")


class ContainerRun:
    """A run under way. exit_code, timed_out and overflowed are decided once `output` has ended.

    exit_code: None when it was killed by us, or for want of an answer.
    """

    def __init__(self, spec: ContainerSpec, engine: ContainerEngine) -> None:
        self.name = f"firebox-{ULID()}".lower()
        self.exit_code: int | None = None
        self.timed_out = False
        self.overflowed = False
        self.ending: asyncio.Task[None] | None = None
        """Set by whoever ends the run."""
        self.client = ""
        """Who holds the run's slot; set by whoever took it."""
        self._spec = spec
        self._engine = engine
        self._creating: asyncio.Task[None] | None = None
        self._attachment: Attachment | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._killing: asyncio.Task[bool] | None = None
        self._deadline = 0.0
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._failure: FireboxError | None = None

    @property
    def wall_ms(self) -> float:
        """How long the program has run, or ran."""
        if self._started_at is None:
            return 0.0
        return ((self._ended_at or asyncio.get_running_loop().time()) - self._started_at) * 1000

    @property
    def outcome(self) -> str:
        """Say how it ended: "exited", "timed_out", "overflowed", or "failed" for want of an answer or of a reader."""
        if self.timed_out:
            return "timed_out"
        if self.overflowed and self.exit_code is None:
            return "overflowed"
        return "failed" if self.exit_code is None else "exited"

    async def begin(self) -> None:
        """Make the container, attach, start it and begin to feed it. Raises: PartUnavailable, NotFound, ContainerError."""
        spec = self._spec
        # The engine goes on making a container when we hang up: whoever is cancelled here still learns of it, in `end`.
        self._creating = asyncio.create_task(self._engine.create(self.name, configuration_of(spec)))
        await asyncio.shield(self._creating)
        self._attachment = await self._engine.attach(self.name, stdin=spec.stdin is not None)
        self._check()
        await self._engine.start(self.name)
        loop = asyncio.get_running_loop()
        self._started_at = loop.time()
        self._deadline = self._started_at + spec.wall_ms / 1000
        self._clock = loop.call_at(self._deadline, self._expire)
        self._check()
        if spec.stdin is not None:
            self._feeding = asyncio.create_task(self._attachment.feed(spec.stdin))

    async def output(self) -> AsyncGenerator[Chunk]:
        """Give output as it arrives, cut at `output_bytes` of each stream. To be iterated once.

        Raises: PartUnavailable when the engine goes away, ShuttingDown, ContainerError.
        """
        if self._attachment is None:
            return
        room: dict[StreamName, int] = {"stdout": self._spec.output_bytes, "stderr": self._spec.output_bytes}
        async with aclosing(self._attachment.chunks()) as chunks:
            async for chunk in chunks:
                if self.timed_out or self._failure is not None:
                    break
                kept = chunk.data[: room[chunk.stream]]
                room[chunk.stream] -= len(kept)
                if kept:
                    yield Chunk(chunk.stream, kept)
                if len(kept) < len(chunk.data):
                    self.overflowed = True
                    if self._spec.output_mode is OutputMode.KILL:
                        self._kill()
                        return
        self._check()
        if not self.timed_out:
            await self._read_exit_code()

    def abandon(self, failure: FireboxError) -> None:
        """End the run from outside: whoever reads its output gets `failure`."""
        self._failure = self._failure or failure
        self._kill()

    async def end(self) -> bool:
        """Remove the container, whatever state the run is in. Returns False when the engine could not be told.

        Waits for a container that is still being made. Never raises.
        """
        if self._clock is not None:
            self._clock.cancel()
        if self._attachment is not None:
            self._attachment.close()
        if self._feeding is not None:
            self._feeding.cancel()
        if self._creating is None:
            return True
        await asyncio.wait({self._creating})
        if self._creating.exception() is not None:
            # What the engine made of it is not known, except that there is nothing when it said so.
            return await self._remove()
        self._kill()
        return await self._killing if self._killing is not None else True

    async def _read_exit_code(self) -> None:
        """Wait for the exit code: a program may close its streams and go on, until its time is over."""
        patience = asyncio.timeout_at(self._deadline + EXIT_GRACE_S)
        try:
            async with patience:
                self.exit_code = await self._engine.exit_code(self.name)
                self._ended_at = asyncio.get_running_loop().time()
        except TimeoutError:
            if not patience.expired():
                raise
            self.timed_out = True
        except FireboxError:
            # The wall clock, or the end of the server, may have removed the container while we asked about it.
            self._check()
            if not self.timed_out:
                raise
        if self.timed_out:
            self.exit_code = None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _expire(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        """Kill and remove the container on the side; whoever reads sees the end of the output."""
        self._ended_at = self._ended_at or asyncio.get_running_loop().time()
        if self._attachment is not None:
            self._attachment.close()
        if self._killing is None and self._creating is not None and self._creating.done():
            self._killing = asyncio.create_task(self._remove())

    async def _remove(self) -> bool:
        try:
            await self._engine.remove(self.name)
        except FireboxError as error:
            _log.warning("removing a container failed", container=self.name, code=error.code, message=error.message)
            return False
        return True


def configuration_of(spec: ContainerSpec) -> dict[str, Any]:
    """Write what the engine is to make: no network, no privilege, nothing of the program's output kept on disk.

    Source: Docker Engine API, "Create a container".
    """
    stdin = spec.stdin is not None
    stack_bytes = default_stack_bytes(spec.memory_bytes)
    return {
        "Image": spec.image,
        **({"Cmd": list(spec.arguments)} if spec.arguments else {}),
        **({"Entrypoint": list(spec.entrypoint)} if spec.entrypoint else {}),
        **({"User": spec.user} if spec.user else {}),
        **({"Hostname": spec.hostname} if spec.hostname else {}),
        "Labels": labels_of_a_run(spec.wall_ms),
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": stdin,
        "StdinOnce": stdin,
        "Tty": False,
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "Memory": spec.memory_bytes,
            "MemorySwap": spec.memory_bytes,
            # Counted for each container; the limit of processes a user would be shared by all containers of that user.
            "PidsLimit": spec.processes,
            "Ulimits": [
                {"Name": "nofile", "Soft": max(1, spec.open_files * 9 // 10), "Hard": spec.open_files},
                {"Name": "stack", "Soft": stack_bytes, "Hard": stack_bytes},
                {"Name": "core", "Soft": 0, "Hard": 0},
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "ReadonlyRootfs": spec.read_only,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={TEMPORARY_BYTES}"} if spec.read_only else {},  # noqa: S108
            "IpcMode": "private",
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": False,
        },
    }
