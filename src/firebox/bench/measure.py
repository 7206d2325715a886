"""Interleaved measurements: every round runs each contender once, so that disturbances affect all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

from firebox.bench.contender import Contender
from firebox.bench.http_client import Exchange, run_at_rate, run_with_callers
from firebox.bench.processes import Processes, run_side_by_side
from firebox.bench.report import PeerThroughput, Throughput
from firebox.bench.samples import Duration, summarise
from firebox.bench.serving import Served

Advance = Callable[[float], None]
"""Called with the completed fraction of the current work, from 0 to 1."""

_ROUNDS_AT_LEAST = 2
_SLICE_S = 0.7
"""How long one contender of a load test runs before the next one."""


def take_turns(contenders: Sequence[Contender], rounds: int, seconds: float, advance: Advance) -> dict[str, Duration]:
    """Run `rounds` rounds, or as many as fit into the time, but at least two. Return durations by name.

    The order rotates, so that no contender always follows the same other one.
    Raises: BenchmarkFailed.
    """
    for contender in contenders:
        contender.run()  # fills caches and the pool
    samples_ms: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    started = time.perf_counter()
    for number in range(rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            if number % contender.every == 0:
                samples_ms[contender.name].append(contender.run())
        spent = (time.perf_counter() - started) / seconds
        advance(min(1.0, max(spent, (number + 1) / rounds)))
        if spent >= 1 and number + 1 >= _ROUNDS_AT_LEAST:
            break
    advance(1.0)
    return {name: summarise(samples) for name, samples in samples_ms.items() if samples}


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the requests it is sent repeatedly.

    first: requests of programs that were never compiled before, for compiled languages.
    """

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
        done = run_with_callers(self.server.url, exchanges, callers)
        used = self.server.tree.used().since(before)
        return done.runs / done.wall_s, used.server_s / done.runs * 1000, used.all_s / done.runs * 1000


def load(
    bare: Processes,
    firebox: Target,
    peer: Target | None,
    *,
    bare_ms: float,
    http_ms: float,
    runs: int,
    callers: int,
    workers: int,
    seconds: float,
    advance: Advance,
) -> Throughput:
    """Measure runs per second, bare and by the server with one client and with several, and durations at half of that rate.

    peer: another server, measured with several clients. bare_ms, http_ms: approximate duration of a run, which determines how
    many make up a slice: at most `runs`, unless that leaves clients idle.
    Raises: BenchmarkFailed.
    """
    slice_runs = max(min(int(_SLICE_S * 1000 / bare_ms), runs), callers, workers)
    # CPU time is counted in hundredths of a second: cached runs are repeated more often than compilations.
    server_runs = max(min(int(_SLICE_S * 1000 / http_ms), runs), callers)
    rates: dict[str, list[float]] = {"bare": [], "alone": [], "together": [], "peer": []}
    cpu_ms: dict[str, list[float]] = {"bare": [], "server": [], "http": [], "first": [], "peer": []}
    half_load_ms: list[float] = []
    started = time.perf_counter()
    while True:
        side_by_side = run_side_by_side(bare, runs=slice_runs, workers=workers)
        rates["bare"].append(side_by_side.runs / side_by_side.wall_s)
        cpu_ms["bare"].append(side_by_side.cpu_s / side_by_side.runs * 1000)
        rates["alone"].append(firebox.run(max(server_runs // 2, 2), 1)[0])
        runs_per_s, server_ms, all_ms = firebox.run(server_runs, callers)
        rates["together"].append(runs_per_s)
        cpu_ms["server"].append(server_ms)
        cpu_ms["http"].append(all_ms)
        if peer is not None:
            peer_per_s, _server_ms, peer_ms = peer.run(server_runs, callers)
            rates["peer"].append(peer_per_s)
            cpu_ms["peer"].append(peer_ms)
        first_ms = firebox.run_first(slice_runs)
        if first_ms is not None:
            cpu_ms["first"].append(first_ms)
        half_load_ms += run_at_rate(firebox.server.url, firebox.exchange, server_runs, runs_per_s / 2)
        spent = (time.perf_counter() - started) / seconds
        advance(min(1.0, spent))
        if spent >= 1 or slice_runs >= runs:
            break
    advance(1.0)
    return Throughput(
        workers=workers,
        callers=callers,
        bare_per_s=round(median(rates["bare"]), 2),
        http_alone_per_s=round(median(rates["alone"]), 2),
        http_per_s=round(median(rates["together"]), 2),
        ratio=round(median(mine / other for mine, other in zip(rates["together"], rates["bare"], strict=True)), 3),
        bare_cpu_ms=round(median(cpu_ms["bare"]), 3),
        server_cpu_ms=round(median(cpu_ms["server"]), 3),
        http_cpu_ms=round(median(cpu_ms["http"]), 3),
        first_cpu_ms=round(median(cpu_ms["first"]), 3) if cpu_ms["first"] else None,
        half_load=summarise(half_load_ms),
        peer=PeerThroughput(round(median(rates["peer"]), 2), round(median(cpu_ms["peer"]), 3)) if rates["peer"] else None,
    )
