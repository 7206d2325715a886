"""Metrics in Prometheus' text format."""

from __future__ import annotations

from firebox.domain.errors import QueueFull
from firebox.domain.model import Result, RuntimeName, Timings, Verdict
from firebox.engine.executor import Statistics
from firebox.sandbox.pool.pool import PoolStatistics
from firebox.service.run_metrics import Metrics
from tests.support.results import result_with, stage_with

POOL = PoolStatistics(ready=4, target=4, made_on_demand=1, prestarted=2, restored=1, launcher_restarts=0)
IDLE = Statistics(slots=3, in_flight=0, queued=0, pool=POOL)


def result(queue_ms: float) -> Result:
    return result_with(
        runtime=RuntimeName("c", "12.2.0"),
        run=stage_with(wall_ms=1000.0),
        timings=Timings(queue_ms=queue_ms, prepare_ms=2.0, compile_ms=0.0, run_ms=1000.0),
    )


def lines_of(metrics: Metrics) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]


def test_without_a_run_there_are_numbers_of_the_executor_and_empty_histograms() -> None:
    lines = lines_of(Metrics(lambda: IDLE))
    assert {"firebox_slots 3.0", "firebox_restored 1.0", 'firebox_prepare_seconds_bucket{le="+Inf"} 0.0'} <= set(lines)
    assert not [line for line in lines if line.startswith(("firebox_runs", "firebox_refused", "firebox_stage"))]


def test_what_is_counted_is_written() -> None:
    metrics = Metrics(lambda: IDLE)
    for queue_ms in (1.0, 70_000.0):
        metrics.count_result(result(queue_ms))
    metrics.refused[QueueFull("full", retry_after_s=1.0).code,] += 1
    metrics.containers["exited",] += 1
    metrics.note_slow_toolchain("go", "1.19.8")
    lines = lines_of(metrics)
    assert 'firebox_runs_total{language="c",verdict="ok"} 2.0' in lines
    assert f'firebox_refused_total{{code="{QueueFull.code}"}} 1.0' in lines
    assert 'firebox_container_runs_total{outcome="exited"} 1.0' in lines
    assert 'firebox_slow_toolchains{language="go",version="1.19.8"} 1.0' in lines
    # A duration counts in the bucket that it is the bound of, and in all above.
    stage = 'firebox_stage_seconds_bucket{{language="c",le="{}",stage="run"}} {}'
    assert [stage.format("0.5", "0.0"), stage.format("1.0", "2.0"), stage.format("+Inf", "2.0")] == [
        line for line in lines if "stage_seconds_bucket" in line and any(f'"{bound}"' in line for bound in ("0.5", "1.0", "+Inf"))
    ]
    assert [line for line in lines if line.startswith("firebox_queue_wait_seconds_") and "_bucket" not in line] == [
        "firebox_queue_wait_seconds_count 2.0",
        "firebox_queue_wait_seconds_sum 70.001",
    ]
    assert 'firebox_queue_wait_seconds_bucket{le="60.0"} 1.0' in lines


def test_a_run_cancelled_in_the_queue_counts_as_run_but_not_in_the_durations() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.count_result(
        result_with(verdict=Verdict.CANCELLED, timings=Timings(queue_ms=9.0, prepare_ms=0, compile_ms=0, run_ms=0))
    )
    lines = lines_of(metrics)
    assert 'firebox_runs_total{language="bash",verdict="cancelled"} 1.0' in lines
    assert {"firebox_prepare_seconds_count 0.0", "firebox_queue_wait_seconds_count 0.0"} <= set(lines)
