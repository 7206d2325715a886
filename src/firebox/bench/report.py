"""What a benchmark found, as data: the JSON of `firebox bench --json` has exactly this shape."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from msgspec import Struct

import firebox
from firebox.bench.judging import Judging
from firebox.bench.process_tree import Idle
from firebox.bench.samples import Duration


class Machine(Struct, frozen=True):
    """Where it was measured."""

    processor: str
    cores: int
    kernel: str
    python: str


class PeerThroughput(Struct, frozen=True):
    """Runs a second by another server with as many callers, and the processor time of each with everything that it started."""

    per_s: float
    cpu_ms: float


class Throughput(Struct, frozen=True, kw_only=True):
    """Runs a second, and the processor time of each run.

    workers: bare runs at once. callers: of the server at once. ratio: the server with them, against bare.
    server_cpu_ms: of the server process alone; http_cpu_ms: with everything that it started, the program included.
    first_cpu_ms: the same of a program that had to be compiled, which is what bare_cpu_ms is of a compiled language.
    half_load: of runs that came at half the rate that the callers reached, at random moments.
    peer: by go-judge, where it was measured.
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
    """One language. durations: by the way of running; ratios: their medians against the bare one's."""

    language: str
    version: str
    durations: dict[str, Duration]
    ratios: dict[str, float]
    throughput: Throughput | None = None


class NativeReport(Struct, frozen=True):
    """A compiled program that does nothing. cost_ms: its median in the engine, less its bare median."""

    durations: dict[str, Duration]
    cost_ms: float


class Start(Struct, frozen=True):
    """How long a server took from its start to the answer of its first run. language: of that run."""

    language: str
    seconds: float


class Peer(Struct, frozen=True):
    """go-judge's server. version: its own word."""

    version: str
    start: Start | None
    idle: Idle


class Report(Struct, frozen=True, kw_only=True):
    """All of it. missing: what could not be measured here, and why."""

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
    """Look at the machine this runs on."""
    processor = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith(("model name", "Model"))),
        platform.machine(),
    )
    return Machine(processor, os.cpu_count() or 1, platform.release(), platform.python_version())


def language_report(
    language: str, version: str, durations: dict[str, Duration], baseline: str, throughput: Throughput | None
) -> LanguageReport:
    """Add the ratios. baseline: the way of running that the others are compared with."""
    bare_ms = durations[baseline].median_ms
    ratios = {name: round(duration.median_ms / bare_ms, 3) for name, duration in durations.items()}
    return LanguageReport(language, version, durations, ratios, throughput)


def version_of_firebox() -> str:
    return firebox.__version__


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
