"""The results of a benchmark: the format of `firebox bench --json`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from firebox.bench.contender import Duration
from firebox.bench.judging import Judging
from firebox.bench.process_tree import Idle


class Machine(Struct, frozen=True):
    processor: str
    cores: int
    kernel: str
    python: str


class PeerThroughput(Struct, frozen=True):
    """Runs per second of another server with the same number of clients, and CPU time per run including all of its processes."""

    per_s: float
    cpu_ms: float


class Throughput(Struct, frozen=True, kw_only=True):
    """Runs per second, and CPU time per run.

    workers: concurrent bare runs. callers: concurrent clients of the server. ratio: the server with them, against bare.
    server_cpu_ms: of the server process alone; http_cpu_ms: of all its processes, including the program.
    first_cpu_ms: the same for a program that must be compiled; for compiled languages bare_cpu_ms is comparable to it.
    half_load: runs arriving at random at half the measured rate. peer: go-judge, if measured.
    """

    workers: int
    callers: int
    bare_per_s: float
    http_alone_per_s: float
    http_per_s: float
    ratio: float
    bare_cpu_ms: float
    server_cpu_ms: float
    http_cpu_ms: float
    half_load: Duration
    first_cpu_ms: float | None = None
    peer: PeerThroughput | None = None


class LanguageReport(Struct, frozen=True):
    """One language. durations: by contender; ratios: their medians against bare."""

    language: str
    version: str
    durations: dict[str, Duration]
    ratios: dict[str, float]
    throughput: Throughput | None = None


class NativeReport(Struct, frozen=True):
    """A compiled program that does nothing. cost_ms: its median in the engine minus its bare median."""

    durations: dict[str, Duration]
    cost_ms: float


class Start(Struct, frozen=True):
    """Seconds from the start of a server to the response of its first run. language: of that run."""

    language: str
    seconds: float


class Peer(Struct, frozen=True):
    """A go-judge server. version: as reported by it."""

    version: str
    start: Start | None
    idle: Idle


class Report(Struct, frozen=True, kw_only=True):
    """The whole report. missing: what could not be measured, and why."""

    firebox: str
    machine: Machine
    isolation: list[str]
    languages: list[LanguageReport]
    native: NativeReport | None
    stream: Duration | None
    idle: Idle
    start: Start | None
    judging: Judging | None
    peer: Peer | None
    missing: list[str]


def describe_machine() -> Machine:
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    processor = next(named, platform.machine())
    return Machine(processor, os.cpu_count() or 1, platform.release(), platform.python_version())


def ratios_to(baseline: str, durations: Mapping[str, Duration]) -> dict[str, float]:
    """Return the median of each contender divided by that of one of them."""
    return {name: round(duration.median_ms / durations[baseline].median_ms, 3) for name, duration in durations.items()}
