"""Interleaved measurements: every round runs each contender once, so that disturbances affect all of them alike."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

from firebox.bench.contender import Contender, Duration, summarise
from firebox.bench.http_client import HTTP, Exchange, run_at_rate, run_with_callers
from firebox.bench.processes import BARE, Processes, run_side_by_side
from firebox.bench.report import PeerThroughput, Throughput
from firebox.bench.serving import Served

Advance = Callable[[float], None]
"""Called with the completed fraction of the current work, from 0 to 1."""

_ROUNDS_AT_LEAST = 2
_SLICE_S = 0.7
"""How long one contender of a load test runs before the next one."""


def take_turns(contenders: Iterable[Contender | None], rounds: int, seconds: float, advance: Advance) -> dict[str, Duration]:
    """Run `rounds` rounds, or as many as fit into the time, but at least two. Return durations by name.

    The order rotates, so that no contender always follows the same other one. None: it cannot be measured here.
    Raises: BenchmarkFailed.
    """
    turns = deque(filter(None, contenders))
    for contender in turns:
        contender.run()  # fills caches and the pool
    samples_ms: dict[str, list[float]] = {contender.name: [] for contender in turns}
    started = time.perf_counter()
    for number in range(rounds):
        for contender in turns:
            if number % contender.every == 0:
                samples_ms[contender.name].append(contender.run())
        turns.rotate(-1)
        spent = (time.perf_counter() - started) / seconds
        advance(min(1.0, max(spent, (number + 1) / rounds)))
        if spent >= 1 and number + 1 >= _ROUNDS_AT_LEAST:
            break
    advance(1.0)
    return {name: summarise(samples) for name, samples in samples_ms.items() if samples}


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the requests it is sent repeatedly. first: of programs never compiled before, for compiled languages."""

    server: Served
    exchange: Exchange
    first: Iterator[Exchange] | None = None

    def run(self, runs: int, callers: int) -> tuple[float, float, float]:
        """Run the program `runs` times. Return runs per second, and CPU milliseconds per run: of the server alone, and of all."""
        return self._measure([self.exchange] * runs, callers)

    def run_first(self, runs: int) -> float | None:
        """Compile and run `runs` programs in sequence. Return CPU milliseconds per program; None without a compiler."""
        return self._measure(list(islice(self.first, runs)), 1)[2] if self.first is not None else None

    def _measure(self, exchanges: Sequence[Exchange], callers: int) -> tuple[float, float, float]:
        before = self.server.tree.used()
        wall_s = run_with_callers(self.server.url, exchanges, callers)
        used, runs = self.server.tree.used(), len(exchanges)
        return runs / wall_s, (used.server_s - before.server_s) / runs * 1000, (used.all_s - before.all_s) / runs * 1000


def load(
    bare: Processes,
    firebox: Target,
    peer: Target | None,
    durations: Mapping[str, Duration],
    *,
    runs: int,
    callers: int,
    seconds: float,
    advance: Advance,
) -> Throughput:
    """Measure runs per second, bare and by the server with one client and with several, and durations at half of that rate.

    peer: another server, measured with several clients. durations: of single runs; they determine how many make up a slice: at
    most `runs`, unless that leaves clients idle. Raises: BenchmarkFailed.
    """
    workers = os.cpu_count() or 1
    slice_runs = max(min(int(_SLICE_S * 1000 / durations[BARE].median_ms), runs), callers, workers)
    # CPU time is counted in hundredths of a second: cached runs are repeated more often than compilations.
    server_runs = max(min(int(_SLICE_S * 1000 / durations[HTTP].median_ms), runs), callers)
    samples: defaultdict[str, list[float]] = defaultdict(list)
    half_load_ms: list[float] = []
    started = time.perf_counter()
    while True:
        wall_s, cpu_s = run_side_by_side(bare, runs=slice_runs, workers=workers)
        alone_per_s, *_cpu_ms = firebox.run(max(server_runs // 2, 2), 1)
        runs_per_s, server_ms, all_ms = firebox.run(server_runs, callers)
        figures = {
            "bare_per_s": slice_runs / wall_s,
            "bare_cpu_ms": cpu_s / slice_runs * 1000,
            "http_alone_per_s": alone_per_s,
            "http_per_s": runs_per_s,
            "ratio": runs_per_s * wall_s / slice_runs,
            "server_cpu_ms": server_ms,
            "http_cpu_ms": all_ms,
        }
        if peer is not None:
            figures["peer_per_s"], _server_ms, figures["peer_cpu_ms"] = peer.run(server_runs, callers)
        first_ms = firebox.run_first(slice_runs)
        if first_ms is not None:
            figures["first_cpu_ms"] = first_ms
        for name, figure in figures.items():
            samples[name].append(figure)
        half_load_ms += run_at_rate(firebox.server.url, firebox.exchange, server_runs, runs_per_s / 2)
        spent = (time.perf_counter() - started) / seconds
        advance(min(1.0, spent))
        if spent >= 1 or slice_runs >= runs:
            break
    advance(1.0)
    medians = {name: round(median(values), 2 if name.endswith("_per_s") else 3) for name, values in samples.items()}
    theirs = PeerThroughput(medians.pop("peer_per_s"), medians.pop("peer_cpu_ms")) if peer is not None else None
    return Throughput(workers=workers, callers=callers, half_load=summarise(half_load_ms), peer=theirs, **medians)
