"""Measuring side by side: every round runs each contender once, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from firebox.cli.benchmark.contender import Contender
from firebox.cli.benchmark.execute import run_at_rate, run_with_callers
from firebox.cli.benchmark.processes import Processes, run_side_by_side
from firebox.cli.benchmark.report import Throughput
from firebox.cli.benchmark.samples import Duration, summarise
from firebox.cli.benchmark.serving import Server

Advance = Callable[[float], None]
"""Told how much of the present piece of work is done, from 0 to 1."""

_ROUNDS_AT_LEAST = 2
_SLICE_S = 0.7
"""How long one contender of a load test works before it is the next one's turn."""


def take_turns(contenders: Sequence[Contender], rounds: int, seconds: float, advance: Advance) -> dict[str, Duration]:
    """Run `rounds` rounds, or as many as fit into the time; two always do. Returns durations by name.

    The first contender changes from round to round: nobody always comes after the same other one.
    Raises: BenchmarkFailed.
    """
    for contender in contenders:
        contender.run()  # fills caches, and the sandboxes kept ready
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


def load(
    bare: Processes,
    server: Server,
    request: bytes,
    expected: bytes,
    *,
    run_ms: float,
    runs: int,
    callers: int,
    workers: int,
    seconds: float,
    advance: Advance,
) -> Throughput:
    """Measure runs a second, bare and by the server with one caller and with several, and durations at half of that rate.

    run_ms: what one run takes about; it decides how many make a slice, never more than `runs` unless that leaves callers idle.
    Raises: BenchmarkFailed.
    """
    slice_runs = max(min(int(_SLICE_S * 1000 / run_ms), runs), callers, workers)
    rates: dict[str, list[float]] = {"bare": [], "alone": [], "together": []}
    cpu_ms: dict[str, list[float]] = {"bare": [], "server": [], "http": []}
    half_load_ms: list[float] = []
    started = time.perf_counter()
    while True:
        side_by_side = run_side_by_side(bare, slice_runs, workers)
        rates["bare"].append(side_by_side.runs / side_by_side.wall_s)
        cpu_ms["bare"].append(side_by_side.cpu_s / side_by_side.runs * 1000)
        alone = run_with_callers(server.url, request, expected, max(slice_runs // 2, 2), 1)
        rates["alone"].append(alone.runs / alone.wall_s)
        before = server.used()
        together = run_with_callers(server.url, request, expected, slice_runs, callers)
        used = server.used().since(before)
        rates["together"].append(together.runs / together.wall_s)
        cpu_ms["server"].append(used.server_s / together.runs * 1000)
        cpu_ms["http"].append(used.all_s / together.runs * 1000)
        half_load_ms += run_at_rate(server.url, request, expected, slice_runs, together.runs / together.wall_s / 2)
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
        half_load=summarise(half_load_ms),
    )
