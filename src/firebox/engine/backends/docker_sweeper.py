"""Sweeper: removes orphaned containers, of a server that was killed or an engine that was away.

The labels of a container name its server's process and its latest end. A container is removed when that process is gone (or is
this one and does not know the container), else when its time is over: servers on several machines that share an engine leave
each other's runs alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from firebox.domain.errors import FireboxError
from firebox.engine.backends.docker_engine import ContainerEngine
from firebox.engine.background import background

LABEL = "firebox.run"
"""Its value identifies the process that owns the container."""
EXPIRY_LABEL = "firebox.expires"
"""Seconds since 1970, by the clock of the machine that created the container."""
LATE_S = 5.0
"""Grace period after the latest end of a container."""
INTERVAL_S = 10.0
SHORTEST_INTERVAL_S = 0.5
"""First retry interval for an engine that does not answer."""

_log = structlog.get_logger("firebox.containers")

in_use: set[str] = set()
"""Containers of this process that no sweeper removes; each is added before it is created."""


def labels_of_a_run(wall_ms: int) -> dict[str, str]:
    """Return the labels of a container of this process."""
    return {LABEL: own_identity(), EXPIRY_LABEL: str(int(time.time() + wall_ms / 1000 + LATE_S))}


def own_identity() -> str:
    """Return an identity of this process that others can check for life: boot, PID namespace, PID, start time."""
    return f"{_machine()} {os.getpid()} {_started(os.getpid())}"


class Sweeper:
    """Sweeps at the start, every `INTERVAL_S` seconds, on `wake`, and as soon as an engine that was away is back."""

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine
        self._wake = asyncio.Event()
        self.available = True
        """Whether the engine answered the last time."""

    def wake(self) -> None:
        """Sweep now."""
        self._wake.set()

    @asynccontextmanager
    async def sweeping(self) -> AsyncGenerator[None]:
        """Sweep once, go on in the background, and sweep a last time in the end."""
        await self.sweep()
        try:
            async with background(self._go_on()):
                yield
        finally:
            if self.available:
                await self.sweep()

    async def sweep(self) -> bool:
        """Remove orphaned containers. Returns False when the engine did not answer."""
        try:
            for name, labels in (await self._engine.list_labelled(LABEL)).items():
                if name not in in_use and _is_left_over(labels):
                    await self._engine.remove(name)
                    _log.info("a container that was left behind is removed", container=name)
        except FireboxError as error:
            if self.available:
                _log.warning("containers cannot run for now", code=error.code, message=error.message)
            self.available = False
            return False
        if not self.available:
            _log.info("the container engine answers again")
        self.available = True
        return True

    async def _go_on(self) -> None:
        pause_s = SHORTEST_INTERVAL_S
        while True:
            if self.available:
                pause_s = SHORTEST_INTERVAL_S
            # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S if self.available else pause_s):
                    await self._wake.wait()
            self._wake.clear()
            pause_s = min(2 * pause_s, INTERVAL_S)
            await self.sweep()


def _is_left_over(labels: dict[str, str]) -> bool:
    owner, _, started = labels.get(LABEL, "").rpartition(" ")
    machine, _, process = owner.rpartition(" ")
    if machine == _machine() and process.isdecimal():
        pid = int(process)
        return pid == os.getpid() or not _is_running(pid, started)
    expires = labels.get(EXPIRY_LABEL, "")
    return not expires.isdecimal() or time.time() > int(expires)


def _machine() -> str:
    """Return the scope of a PID: boot and PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """Return the start time of a process, in clock ticks since boot; "" when it cannot be read.

    Source: proc(5), /proc/pid/stat, field 22; the second field, in brackets, may hold anything.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_running(pid: int, started: str) -> bool:
    """Check whether the process with this PID and start time still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return _started(pid) in ("", started)
