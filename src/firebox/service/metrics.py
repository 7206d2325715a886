"""Numbers about the runs, as Prometheus collects them. Names and labels are documented in docs/native-api.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from firebox.errors import FireboxError
from firebox.model import Result

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


class Metrics:
    """Counts results and refusals; reads the rest from the executor when asked."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series each, of use to nobody here
        self._registry = CollectorRegistry()
        self._runs = Counter("firebox_runs", "Runs that ended.", ["language", "verdict"], registry=self._registry)
        self._cache = Counter(
            "firebox_cache", "Runs that ended, by what was kept of earlier ones.", ["level"], registry=self._registry
        )
        self._refused = Counter("firebox_refused", "Runs that were not taken, by error code.", ["code"], registry=self._registry)
        self._containers = Counter(
            "firebox_container_runs", "Runs in containers that ended, by how.", ["outcome"], registry=self._registry
        )
        self._stage = Histogram(
            "firebox_stage_seconds", "Wall clock of a stage.", ["language", "stage"], buckets=SECONDS, registry=self._registry
        )
        self._wait = Histogram(
            "firebox_queue_wait_seconds", "Time spent waiting for a slot.", buckets=SECONDS, registry=self._registry
        )
        self._prepare = Histogram(
            "firebox_prepare_seconds", "Time spent getting and filling sandboxes.", buckets=SECONDS, registry=self._registry
        )
        self._slow = Gauge(
            "firebox_slow_toolchains",
            "1 for each toolchain that could not be prepared, so its compiler stays slow; the log says why.",
            ["language", "version"],
            registry=self._registry,
        )
        for name, words, read in (
            ("firebox_slots", "Jobs that run at once.", lambda: statistics().slots),
            ("firebox_in_flight", "Jobs running now.", lambda: statistics().in_flight),
            ("firebox_queue_length", "Jobs waiting for a slot.", lambda: statistics().queued),
            ("firebox_ready_sandboxes", "Sandboxes ready before anybody asked.", lambda: statistics().ready_sandboxes),
            ("firebox_ready_wanted", "Sandboxes that demand and memory ask for.", lambda: statistics().ready_target),
            ("firebox_made_on_demand", "Stages that found no sandbox ready.", lambda: statistics().made_on_demand),
            ("firebox_started_ahead", "Stages whose program had been started already.", lambda: statistics().started_ahead),
            ("firebox_restored", "Programs that were restored from a template.", lambda: statistics().restored),
            (
                "firebox_launcher_restarts",
                "Times the launcher died and was started again.",
                lambda: statistics().launcher_restarts,
            ),
        ):
            Gauge(name, words, registry=self._registry).set_function(read)

    def count_result(self, result: Result) -> None:
        """Count a run that ended."""
        language = result.runtime.language
        self._runs.labels(language, result.verdict.value).inc()
        self._cache.labels(result.cache).inc()
        self._wait.observe(result.timings.queue_ms / 1000)
        self._prepare.observe(result.timings.prepare_ms / 1000)
        for stage in (result.compile, result.run):
            if stage is not None:
                self._stage.labels(language, stage.stage).observe(stage.wall_ms / 1000)

    def count_refusal(self, error: FireboxError) -> None:
        """Count a run that was not taken."""
        self._refused.labels(error.code).inc()

    def count_container(self, outcome: str) -> None:
        """Count a run in a container that ended. outcome: "exited", "timed_out", "overflowed" or "failed"."""
        self._containers.labels(outcome).inc()

    def note_slow_toolchain(self, language: str, version: str) -> None:
        """Note a toolchain that could not be prepared. Called from any thread."""
        self._slow.labels(language, version).set(1)

    def text(self) -> bytes:
        """Write everything in Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)
