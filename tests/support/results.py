"""Results of jobs that never ran: a test names what matters to it, the rest is of a run that ended well and printed nothing."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from firebox.domain.model import Result, RuntimeName, StageResult, Timings, Verdict

_STAGE = StageResult(
    stage="run",
    verdict=Verdict.OK,
    reason="",
    exit_code=0,
    signal=None,
    chunks=(),
    stdout_truncated=False,
    stderr_truncated=False,
    wall_ms=1,
    cpu_ms=1,
    memory_peak_bytes=1,
)
_RESULT = Result(
    id="x",
    runtime=RuntimeName("bash", "5.0.0"),
    verdict=Verdict.OK,
    reason="",
    compile=None,
    run=None,
    timings=Timings(queue_ms=0, prepare_ms=0, compile_ms=0, run_ms=0),
    artifacts=(),
    isolation=(),
)


def stage_with(**fields: Any) -> StageResult:
    """Return the result of a run stage with these fields."""
    return replace(_STAGE, **fields)


def result_with(**fields: Any) -> Result:
    """Return the result of a job with these fields; without `run` it has no stage."""
    return replace(_RESULT, **fields)
