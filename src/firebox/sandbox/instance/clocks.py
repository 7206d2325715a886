"""The clocks of one run: wall time, CPU time, and deadlines that end with the run."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from firebox.sandbox.plan.cgroups import Meter

_CPU_CHECK_AT_LEAST_MS = 5.0
_PROCESSORS = os.cpu_count() or 1


class Clocks:
    """Measures one run and reports the limits that it exceeds. meter: of its cgroup; an empty one counts no CPU time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, meter: Meter) -> None:
        self._loop = loop
        self._meter = meter
        self._timers: list[asyncio.TimerHandle] = []
        self._cpu_timer: asyncio.TimerHandle | None = None
        self._cpu_limit_ms = 0
        self._cpu_before_ms = 0.0
        self._exceeded: Callable[[str], None] = _ignore
        self._started_at = 0.0
        self._ended_at = 0.0

    def start(self, wall_limit_ms: int, cpu_limit_ms: int, exceeded: Callable[[str], None]) -> None:
        """Start measuring. exceeded: called with "wall_time" or "cpu_time". cpu_limit_ms: 0 means no limit."""
        self._cpu_before_ms = self._meter.cpu_ms() if self._meter else 0.0
        self._started_at = time.monotonic()  # not the event loop's clock: uvloop rounds it to milliseconds
        self._exceeded = exceeded
        self._timers.append(self._loop.call_later(wall_limit_ms / 1000, exceeded, "wall_time"))
        if cpu_limit_ms and self._meter:
            self._cpu_limit_ms = cpu_limit_ms
            self._arm_cpu_clock(cpu_limit_ms)

    def end(self) -> None:
        """Record the end of the wall time, the first time. A run whose start was never reported took none."""
        self._ended_at = self._ended_at or time.monotonic()
        self._started_at = self._started_at or self._ended_at

    def call_later(self, pause_s: float, callback: Callable[[], None]) -> None:
        """Call back after a while, unless the clocks are stopped before."""
        self._timers.append(self._loop.call_later(pause_s, callback))

    def stop(self) -> None:
        """Cancel all timers."""
        while self._timers:
            self._timers.pop().cancel()
        if self._cpu_timer is not None:
            self._cpu_timer.cancel()
            self._cpu_timer = None
        self._exceeded = _ignore  # break the reference cycle

    @property
    def wall_ms(self) -> float:
        return (self._ended_at - self._started_at) * 1000

    def cpu_ms(self) -> float:
        """Return the CPU time of the program so far, without that of creating the sandbox; 0 without a cgroup."""
        return max(self._meter.cpu_ms() - self._cpu_before_ms, 0.0) if self._meter else 0.0

    def _arm_cpu_clock(self, remaining_ms: float) -> None:
        """Check again when the limit can be reached at the earliest: with every processor busy from now on."""
        pause_ms = max(remaining_ms / _PROCESSORS, _CPU_CHECK_AT_LEAST_MS)
        self._cpu_timer = self._loop.call_later(pause_ms / 1000, self._check_cpu)

    def _check_cpu(self) -> None:
        remaining_ms = self._cpu_limit_ms - self.cpu_ms()
        if remaining_ms <= 0:
            self._exceeded("cpu_time")
        else:
            self._arm_cpu_clock(remaining_ms)


def _ignore(_limit: str) -> None:
    return
