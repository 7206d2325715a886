"""What is recorded of runs: metrics, log lines and CPU time; never code, input or output.

Names and labels of the Prometheus metrics are documented in docs/reference/native-api.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

import structlog

from firebox.domain.errors import FireboxError
from firebox.domain.model import Job, Result, Run, Verdict
from firebox.engine.executor import Statistics
from firebox.service.quotas import Charge

if TYPE_CHECKING:  # imported on the first scrape: counting does not need it
    from prometheus_client.core import Metric

MEDIA_TYPE = "text/plain; version=0.0.4"
"""Media type of `Metrics.text`, without the charset: Litestar adds it, and Prometheus rejects a repeated one."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BOUNDS = (*(str(float(bound)) for bound in SECONDS), "+Inf")

_CONTAINER_OUTCOMES = {Verdict.WALL_TIME: "timed_out", Verdict.OUTPUT: "overflowed"}
_Labels = tuple[str, ...]

_log = structlog.get_logger("firebox.service")


class _Durations:
    """A histogram with the buckets of `SECONDS`, and one for longer durations."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum_s += seconds


class Metrics:
    """Counts results and rejections; reads the rest from the executor during a scrape."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics
        self._runs = Counter[_Labels]()
        self._cache = Counter[_Labels]()
        self.refused = Counter[_Labels]()
        """By code of the error."""
        self.containers = Counter[_Labels]()
        """By outcome: "exited", "timed_out", "overflowed" or "failed"."""
        self._stages: dict[_Labels, _Durations] = {}
        self._wait = _Durations()
        self._prepare = _Durations()
        self._slow: dict[tuple[str, str], None] = {}

    def count_result(self, result: Result) -> None:
        """Count a finished run."""
        language = result.runtime.language
        self._runs[language, result.verdict.value] += 1
        self._cache[result.cache,] += 1
        if result.compile is None and result.run is None and result.verdict is Verdict.CANCELLED:
            return  # it left the queue: it never had a slot or a sandbox
        self._wait.observe(result.timings.queue_ms / 1000)
        self._prepare.observe(result.timings.prepare_ms / 1000)
        for stage in (result.compile, result.run):
            if stage is not None:
                self._stages.setdefault((language, stage.stage), _Durations()).observe(stage.wall_ms / 1000)

    def note_slow_toolchain(self, language: str, version: str) -> None:
        """Record a toolchain that could not be prepared. May be called from any thread."""
        self._slow[language, version] = None

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format, version 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as prometheus_client requires of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, words, names, counts in (
            ("firebox_runs", "Finished runs.", ["language", "verdict"], self._runs),
            ("firebox_cache", "Finished runs, by the cache level that served them.", ["level"], self._cache),
            ("firebox_refused", "Rejected runs, by error code.", ["code"], self.refused),
            ("firebox_container_runs", "Finished runs in containers, by outcome.", ["outcome"], self.containers),
        ):
            counter = CounterMetricFamily(name, words, labels=names)
            for labels, count in counts.items():
                counter.add_metric(labels, count)
            yield counter
        for name, words, names, histograms in (
            ("firebox_stage_seconds", "Wall time of a stage.", ["language", "stage"], self._stages),
            ("firebox_queue_wait_seconds", "Time spent waiting for a slot.", [], {(): self._wait}),
            ("firebox_prepare_seconds", "Time spent acquiring and filling sandboxes.", [], {(): self._prepare}),
        ):
            histogram = HistogramMetricFamily(name, words, labels=names)
            for labels, durations in histograms.items():
                totals = zip(BOUNDS, accumulate(durations.counts), strict=True)
                histogram.add_metric(labels, list(totals), durations.sum_s)
            yield histogram
        slow = GaugeMetricFamily(
            "firebox_slow_toolchains",
            "1 for each toolchain that could not be prepared and stays slow; the log has the reason.",
            labels=["language", "version"],
        )
        for labels in list(self._slow):
            slow.add_metric(labels, 1)
        yield slow
        now = self._statistics()
        for name, words, number in (
            ("firebox_slots", "Maximum number of concurrent jobs.", now.slots),
            ("firebox_in_flight", "Running jobs.", now.in_flight),
            ("firebox_queue_length", "Jobs waiting for a slot.", now.queued),
            ("firebox_ready_sandboxes", "Idle sandboxes in the pool.", now.pool.ready),
            ("firebox_ready_wanted", "Target size of the pool, by demand and memory.", now.pool.target),
            ("firebox_made_on_demand", "Stages for which the pool had no idle sandbox.", now.pool.made_on_demand),
            ("firebox_started_ahead", "Stages served by a prestarted program.", now.pool.prestarted),
            ("firebox_restored", "Programs restored from a template.", now.pool.restored),
            ("firebox_launcher_restarts", "Restarts of the launcher after a crash.", now.pool.launcher_restarts),
        ):
            yield GaugeMetricFamily(name, words, value=number)


class RunRecords:
    """Records every run that ends or is refused."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._charges: dict[str, Charge] = {}

    def charge(self, run_id: str, charge: Charge) -> None:
        """Have a run's CPU time added to a charge."""
        self._charges[run_id] = charge

    def note_refusal(self, job: Job, error: FireboxError) -> None:
        """Record a job that was not admitted, or whose container could not be created."""
        self._metrics.refused[error.code,] += 1
        _log.info("run refused" if job.image is None else "container refused", code=error.code, client=job.client)

    def note_result(self, run: Run, result: Result) -> None:
        """Record a run that has ended."""
        charge = self._charges.pop(run.id, None)
        if run.job.image is not None:
            self._note_container(run, run.job.image.name, result, charge)
            return
        if charge is not None:
            charge.cpu_ms += sum(stage.cpu_ms for stage in (result.compile, result.run) if stage is not None)
        self._metrics.count_result(result)
        _log.info(
            "run ended",
            id=result.id,
            language=result.runtime.language,
            version=result.runtime.version,
            verdict=result.verdict.value,
            queue_ms=round(result.timings.queue_ms, 1),
            prepare_ms=round(result.timings.prepare_ms, 1),
            compile_ms=round(result.timings.compile_ms, 1),
            run_ms=round(result.timings.run_ms, 1),
        )

    def _note_container(self, run: Run, image: str, result: Result, charge: Charge | None) -> None:
        """Record a container. Its wall time counts as CPU time, which is not known."""
        stage = result.run
        if stage is None and isinstance(run.failure, FireboxError):
            self.note_refusal(run.job, run.failure)
            return
        if stage is None and result.verdict is Verdict.CANCELLED:
            return  # it left the queue: there was no container
        wall_ms, outcome = 0.0, "failed"
        if stage is not None:
            wall_ms = stage.wall_ms
            outcome = _CONTAINER_OUTCOMES.get(stage.verdict, "failed" if stage.exit_code is None else "exited")
        if charge is not None:
            charge.cpu_ms += wall_ms
        self._metrics.containers[outcome,] += 1
        _log.info("container ended", image=image, outcome=outcome, wall_ms=round(wall_ms, 1))
