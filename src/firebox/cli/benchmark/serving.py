"""A real `firebox serve` beside us, and what it uses."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from msgspec import Struct

from firebox.cli.benchmark.contender import BenchmarkFailed

_STOP_WITHIN_S = 30.0
_CALM_S = 0.5


class Idle(Struct, frozen=True):
    """A server that nobody asks anything, with its launcher and its ready sandboxes.

    memory_bytes: pages that several of its processes share count once. cpu_share: of one core.
    """

    memory_bytes: int
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Used:
    """Processor time so far. server_s: of the server process alone; all_s: with launcher, sandboxes and programs."""

    server_s: float
    all_s: float

    def since(self, before: Used) -> Used:
        return Used(self.server_s - before.server_s, self.all_s - before.all_s)


class Server:
    """Started with a free port and a folder of its own. A context manager."""

    def __init__(self, command: Sequence[str], data_folder: Path) -> None:
        words = [*command, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_folder), "--log-level", "error"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.url = ""

    def __enter__(self) -> Self:
        """Wait until it answers. Raises: BenchmarkFailed when it ends instead; it has said why on stderr."""
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"`firebox serve` ended with status {self._process.wait()}")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def used(self) -> Used:
        """Read the processor time, of processes that have ended too."""
        by_pid = {pid: _cpu_s(pid) for pid in self._tree()}
        return Used(by_pid[self._process.pid][0], sum(own + of_children for own, of_children in by_pid.values()))

    def idle(self, seconds: float) -> Idle:
        """Leave the server alone for a while and see what it uses."""
        time.sleep(_CALM_S)
        before_s, started = self.used().all_s, time.perf_counter()
        time.sleep(seconds)
        share = (self.used().all_s - before_s) / (time.perf_counter() - started)
        return Idle(sum(map(_own_memory_bytes, self._tree())), round(share, 5))

    def _tree(self) -> Iterator[int]:
        """Yield the server and everything below it."""
        pids = [self._process.pid]
        while pids:
            pid = pids.pop()
            yield pid
            try:
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue


def _cpu_s(pid: int) -> tuple[float, float]:
    """Return processor time of a process and of its children that it has waited for. Source: proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) / ticks, (int(fields[13]) + int(fields[14])) / ticks


def _own_memory_bytes(pid: int) -> int:
    """Return the proportional set size. Source: proc_pid_smaps(5), "Pss"."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
