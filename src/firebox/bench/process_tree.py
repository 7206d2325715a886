"""Resource usage of a process and its descendants."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from msgspec import Struct

_CALM_S = 0.5
_CALM_SHARE = 0.1
_CALM_WITHIN_S = 60.0


class Idle(Struct, frozen=True):
    """An idle server, with its launcher and idle sandboxes.

    memory_bytes: shared pages count once. cpu_share: of one core.
    ready_bytes: median of PID 1 of an idle sandbox, shared pages divided among their users; None if unreadable.
    """

    memory_bytes: int
    cpu_share: float
    ready_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """CPU time so far. server_s: of the server process alone; all_s: including launcher, sandboxes and programs."""

    server_s: float
    all_s: float


@dataclass(frozen=True, slots=True)
class ProcessTree:
    """A process and its descendants, by the pid of the root."""

    pid: int

    def used(self) -> Used:
        """Return the CPU time, including that of processes that have exited."""
        by_pid = {pid: _cpu_s(pid) for pid in self.pids()}
        return Used(by_pid[self.pid][0], sum(own + of_children for own, of_children in by_pid.values()))

    def idle(self, seconds: float) -> Idle:
        """Wait until startup work is done, then measure for a while without load."""
        deadline_s = time.perf_counter() + _CALM_WITHIN_S
        while self._cpu_share(_CALM_S) > _CALM_SHARE and time.perf_counter() < deadline_s:
            pass
        share = self._cpu_share(seconds)
        memory_bytes = {pid: _memory_bytes(pid) for pid in self.pids()}
        ready_bytes = [size for pid, size in memory_bytes.items() if size and _is_first_of_a_namespace(pid)]
        return Idle(sum(memory_bytes.values()), round(share, 5), round(median(ready_bytes)) if ready_bytes else None)

    def _cpu_share(self, seconds: float) -> float:
        before_s, started = self.used().all_s, time.perf_counter()
        time.sleep(seconds)
        return (self.used().all_s - before_s) / (time.perf_counter() - started)

    def pids(self) -> Iterator[int]:
        """Yield the pids of the process and its descendants."""
        pids = [self.pid]
        while pids:
            pid = pids.pop()
            yield pid
            for children in Path(f"/proc/{pid}/task").glob("*/children"):  # each thread lists the children it started
                with suppress(FileNotFoundError, ProcessLookupError):
                    pids += map(int, children.read_text().split())


def _cpu_s(pid: int) -> tuple[float, float]:
    """Return the CPU time of a process and of its reaped children. Source: proc_pid_stat(5)."""
    fields = _read(pid, "stat").rpartition(")")[2].split() or ["0"] * 15
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, (int(fields[13]) + int(fields[14])) / ticks


def _memory_bytes(pid: int) -> int:
    """Return the proportional set size. Source: proc_pid_smaps(5), "Pss"."""
    lines = _read(pid, "smaps_rollup").splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def _is_first_of_a_namespace(pid: int) -> bool:
    """Return whether a process is PID 1 of its own namespace. Source: proc_pid_status(5), "NSpid"."""
    lines = _read(pid, "status").splitlines()
    numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), list[str]())
    return len(numbers) > 1 and numbers[-1] == "1"


def _read(pid: int, name: str) -> str:
    """Return the text of a file of a process, "" if it has ended or may not be read."""
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return ""
