"""Numbers about the runs, as Prometheus collects them. Names and labels are documented in docs/reference/native-api.md."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from firebox.domain.errors import FireboxError
from firebox.domain.model import Result

if TYPE_CHECKING:  # loaded once somebody asks for the numbers: counting needs nothing of it
    from prometheus_client.core import HistogramMetricFamily, Metric

MEDIA_TYPE = "text/plain; version=0.0.4"
"""Of `Metrics.text`. Without the charset: Litestar adds it, and Prometheus rejects a type that has it twice."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Statistics(Protocol):
    """What an executor says about itself at this moment."""

    @property
    def slots(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def ready_sandboxes(self) -> int: ...
    @property
    def ready_target(self) -> int: ...
    @property
    def made_on_demand(self) -> int: ...
    @property
    def started_ahead(self) -> int: ...
    @property
    def restored(self) -> int: ...
    @property
    def launcher_restarts(self) -> int: ...


class _Durations:
    """How often something took how long: by bucket of `SECONDS`, the last one for what took longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum_s += seconds


class Metrics:
    """Counts results and refusals; reads the rest from the executor when asked."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics
        self._runs = Counter[tuple[str, str]]()
        self._cache = Counter[str]()
        self._refused = Counter[str]()
        self._containers = Counter[str]()
        self._stages: dict[tuple[str, str], _Durations] = {}
        self._wait = _Durations()
        self._prepare = _Durations()
        self._slow: dict[tuple[str, str], None] = {}

    def count_result(self, result: Result) -> None:
        """Count a run that ended."""
        language = result.runtime.language
        self._runs[language, result.verdict.value] += 1
        self._cache[result.cache] += 1
        self._wait.observe(result.timings.queue_ms / 1000)
        self._prepare.observe(result.timings.prepare_ms / 1000)
        for stage in (result.compile, result.run):
            if stage is not None:
                self._stages.setdefault((language, stage.stage), _Durations()).observe(stage.wall_ms / 1000)

    def count_refusal(self, error: FireboxError) -> None:
        """Count a run that was not taken."""
        self._refused[error.code] += 1

    def count_container(self, outcome: str) -> None:
        """Count a run in a container that ended. outcome: "exited", "timed_out", "overflowed" or "failed"."""
        self._containers[outcome] += 1

    def note_slow_toolchain(self, language: str, version: str) -> None:
        """Note a toolchain that could not be prepared. Called from any thread."""
        self._slow[language, version] = None

    def text(self) -> bytes:
        """Write everything in Prometheus' text format, version 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as the library asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        runs = CounterMetricFamily("firebox_runs", "Runs that ended.", labels=["language", "verdict"])
        for labels, count in self._runs.items():
            runs.add_metric(labels, count)
        yield runs
        for name, words, label, counts in (
            ("firebox_cache", "Runs that ended, by what was kept of earlier ones.", "level", self._cache),
            ("firebox_refused", "Runs that were not taken, by error code.", "code", self._refused),
            ("firebox_container_runs", "Runs in containers that ended, by how.", "outcome", self._containers),
        ):
            counter = CounterMetricFamily(name, words, labels=[label])
            for value, count in counts.items():
                counter.add_metric([value], count)
            yield counter
        stages = HistogramMetricFamily("firebox_stage_seconds", "Wall clock of a stage.", labels=["language", "stage"])
        for labels, durations in self._stages.items():
            _add(stages, labels, durations)
        yield stages
        for name, words, durations in (
            ("firebox_queue_wait_seconds", "Time spent waiting for a slot.", self._wait),
            ("firebox_prepare_seconds", "Time spent getting and filling sandboxes.", self._prepare),
        ):
            histogram = HistogramMetricFamily(name, words)
            _add(histogram, (), durations)
            yield histogram
        slow = GaugeMetricFamily(
            "firebox_slow_toolchains",
            "1 for each toolchain that could not be prepared, so its compiler stays slow; the log says why.",
            labels=["language", "version"],
        )
        for labels in list(self._slow):
            slow.add_metric(labels, 1)
        yield slow
        now = self._statistics()
        for name, words, number in (
            ("firebox_slots", "Jobs that run at once.", now.slots),
            ("firebox_in_flight", "Jobs running now.", now.in_flight),
            ("firebox_queue_length", "Jobs waiting for a slot.", now.queued),
            ("firebox_ready_sandboxes", "Sandboxes ready before anybody asked.", now.ready_sandboxes),
            ("firebox_ready_wanted", "Sandboxes that demand and memory ask for.", now.ready_target),
            ("firebox_made_on_demand", "Stages that found no sandbox ready.", now.made_on_demand),
            ("firebox_started_ahead", "Stages whose program had been started already.", now.started_ahead),
            ("firebox_restored", "Programs that were restored from a template.", now.restored),
            ("firebox_launcher_restarts", "Times the launcher died and was started again.", now.launcher_restarts),
        ):
            yield GaugeMetricFamily(name, words, value=number)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], durations: _Durations) -> None:
    bounds = (*(str(float(bound)) for bound in SECONDS), "+Inf")
    family.add_metric(labels, list(zip(bounds, accumulate(durations.counts), strict=True)), durations.sum_s)
