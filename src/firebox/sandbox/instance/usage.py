"""What one run uses: wall time, CPU time and memory, measured and limited."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial

from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.protocol.messages import Exceeded, Exited, Kind
from firebox.sandbox.spec import Command, Exit, SandboxFailure, StreamName

_CPU_CHECK_AT_LEAST_MS = 5.0
_PROCESSORS = os.cpu_count() or 1

_KILLED = Exited(Kind.EXITED, -signal.SIGKILL, Exceeded.NOTHING, 0, 0, 0)
"""Stands for the report of a sandbox that was killed as a whole."""
KILLED_HINT = "was the launcher killed?"
_EXCEEDED = {Exceeded.NOTHING: "", Exceeded.MEMORY: "memory", Exceeded.CPU_TIME: "cpu_time"}


class Usage:
    """Measures one run and reports the limits that it exceeds. meter: of its cgroup; an empty one measures nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watcher: Watcher, meter: Meter) -> None:
        self._loop = loop
        self._watcher = watcher
        self._meter = meter
        self._timers: list[asyncio.TimerHandle] = []
        self._cpu_timer: asyncio.TimerHandle | None = None
        self._cpu_limit_ms = 0
        self._cpu_before_ms = 0.0
        self._memory_event = -1
        self._exceeded: Callable[[str], None] = _ignore
        self._started_at = 0.0
        self._ended_at = 0.0

    def start(self, command: Command, exceeded: Callable[[str], None]) -> None:
        """Start measuring. exceeded: called with "wall_time", "cpu_time" or "memory"."""
        self._cpu_before_ms = self._meter.cpu_ms() if self._meter else 0.0
        self._started_at = time.monotonic()  # not the event loop's clock: uvloop rounds it to milliseconds
        self._exceeded = exceeded
        self._timers.append(self._loop.call_later(command.wall_ms / 1000, exceeded, "wall_time"))
        self._cpu_limit_ms = command.cpu_ms
        if command.cpu_ms and self._meter:
            self._arm_cpu_clock(command.cpu_ms)
        self._memory_event = self._meter.memory_event()
        if self._memory_event >= 0:
            self._watcher.add(self._memory_event, partial(exceeded, "memory"))

    def end(self) -> None:
        """Record the end of the wall time, the first time. A run whose start was never reported took none."""
        self._ended_at = self._ended_at or time.monotonic()
        self._started_at = self._started_at or self._ended_at

    def call_later(self, pause_s: float, callback: Callable[[], None]) -> None:
        """Call back after a while, unless the timers are stopped before."""
        self._timers.append(self._loop.call_later(pause_s, callback))

    def stop(self) -> None:
        """Cancel all timers, and enforce no limit any more."""
        while self._timers:
            self._timers.pop().cancel()
        if self._cpu_timer is not None:
            self._cpu_timer.cancel()
            self._cpu_timer = None
        if self._memory_event >= 0:
            self._watcher.remove(self._memory_event)
            self._memory_event = -1
        self._exceeded = _ignore  # break the reference cycle

    def exit(self, report: Exited | None, killed_by: str, truncated: Mapping[StreamName, bool]) -> Exit:
        """Return how the run ended. report: of PID 1; None: it was killed as well. Raises: SandboxFailure, OSError."""
        message = report or _KILLED
        code = message.status
        memory_kills = self._meter.memory_kills() if self._meter else 0
        # The cgroup does not distinguish the CPU time of a program until its start is reported from ours.
        cpu_ms = max(self._cpu_ms(), message.cpu_us / 1000)
        killed_by = killed_by or _EXCEEDED[Exceeded(message.exceeded)]
        if not killed_by and memory_kills and code != 0:
            killed_by = "memory"
        if not killed_by and code in (-signal.SIGXCPU, -signal.SIGKILL) and self._cpu_limit_ms and cpu_ms >= self._cpu_limit_ms:
            killed_by = "cpu_time"  # the backstop, RLIMIT_CPU
        if report is None and not killed_by:
            raise SandboxFailure("run", detail="the sandbox ended without a report", hint=KILLED_HINT)
        return Exit(
            status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            killed_by=killed_by,
            wall_ms=(self._ended_at - self._started_at) * 1000,
            cpu_ms=cpu_ms,
            memory_peak_bytes=self._meter.memory_peak_bytes() if self._meter else message.memory_peak_bytes,
            memory_limit_hit=memory_kills > 0 or killed_by == "memory",
            stdout_truncated=truncated["stdout"],
            stderr_truncated=truncated["stderr"],
        )

    def _cpu_ms(self) -> float:
        """Return the CPU time of the program so far, without that of creating the sandbox; 0 without a cgroup."""
        return max(self._meter.cpu_ms() - self._cpu_before_ms, 0.0) if self._meter else 0.0

    def _arm_cpu_clock(self, remaining_ms: float) -> None:
        """Check again when the limit can be reached at the earliest: with every processor busy from now on."""
        pause_ms = max(remaining_ms / _PROCESSORS, _CPU_CHECK_AT_LEAST_MS)
        self._cpu_timer = self._loop.call_later(pause_ms / 1000, self._check_cpu)

    def _check_cpu(self) -> None:
        remaining_ms = self._cpu_limit_ms - self._cpu_ms()
        if remaining_ms <= 0:
            self._exceeded("cpu_time")
        else:
            self._arm_cpu_clock(remaining_ms)


def _ignore(_limit: str) -> None:
    return
