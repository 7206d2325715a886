"""The table from error to answer knows every error there is."""

from __future__ import annotations

from typing import Any

import pytest

import firebox.doors.piston.routes
from firebox.domain import errors
from firebox.domain.model import Chunk, Result, RuntimeName, StageResult, Verdict
from firebox.doors.http import refusals
from firebox.doors.piston import wire
from firebox.doors.piston.wire import STATUS
from firebox.engine.run import Run
from tests.support.errors import all_errors, make_error
from tests.support.results import result_with, stage_with

LOADED = (refusals, firebox.doors.piston.routes, Run)
"""Errors are known once the modules that define them are."""

FAMILY = all_errors()


@pytest.mark.parametrize("class_", FAMILY, ids=[class_.__name__ for class_ in FAMILY])
def test_every_error_has_an_answer(class_: type[errors.FireboxError]) -> None:
    status, message = wire.from_error(make_error(class_, "run.wall_ms"))
    assert 400 <= status < 600
    assert message.message
    others_are_at_fault = issubclass(class_, errors.RequestError) and not issubclass(class_, errors.Conflict)
    assert (status < 500) == (others_are_at_fault or class_ in (errors.QueueFull, errors.BodiesFull, errors.RateLimited))


@pytest.mark.parametrize("class_", [class_ for class_ in FAMILY if class_.__module__ in (errors.__name__, refusals.__name__)])
def test_every_error_is_in_the_table_itself(class_: type[errors.FireboxError]) -> None:
    assert class_ in STATUS


def stage(verdict: Verdict, **more: Any) -> StageResult:
    values: dict[str, Any] = {
        "verdict": verdict, "reason": "words", "exit_code": None, "chunks": (Chunk("stdout", b"x"),),
        "wall_ms": 1.5, "cpu_ms": 0.4, "memory_peak_bytes": 7, **more,
    }  # fmt: skip
    return stage_with(**values)


def result(run: StageResult | None, compiled: StageResult | None = None, verdict: Verdict = Verdict.INTERNAL) -> Result:
    return result_with(id="", runtime=RuntimeName("c", "1.2.3"), verdict=verdict, reason="why", compile=compiled, run=run)


VERDICTS: list[tuple[StageResult, tuple[object, ...]]] = [
    (stage(Verdict.OK, exit_code=0), (0, None, None, None)),
    (stage(Verdict.RUNTIME_ERROR, exit_code=4), (4, None, "RE", "Exited with error status 4")),
    (stage(Verdict.SIGNAL, signal="SIGSEGV"), (None, "SIGSEGV", "SG", "Caught fatal signal 11")),
    (stage(Verdict.SIGNAL, signal="SIG40"), (None, "SIG40", "SG", "Caught fatal signal 40")),
    (stage(Verdict.WALL_TIME, signal="SIGKILL"), (None, "SIGKILL", "TO", "Time limit exceeded (wall clock)")),
    (stage(Verdict.CPU_TIME, exit_code=1), (None, "SIGKILL", "TO", "Time limit exceeded")),
    (stage(Verdict.MEMORY, exit_code=1), (None, "SIGKILL", "SG", "Caught fatal signal 9 (words)")),
    (stage(Verdict.OUTPUT, stdout_truncated=True), (None, "SIGKILL", "OL", "stdout length exceeded")),
    (stage(Verdict.OUTPUT, stderr_truncated=True), (None, "SIGKILL", "EL", "stderr length exceeded")),
    (stage(Verdict.CANCELLED, signal="SIGKILL"), (None, "SIGKILL", "XX", "words")),
    (stage(Verdict.INTERNAL), (None, None, "XX", "words")),
]


@pytest.mark.parametrize(("made", "expected"), VERDICTS, ids=[made.verdict for made, _ in VERDICTS])
def test_every_verdict_has_its_status(made: StageResult, expected: tuple[object, ...]) -> None:
    run = wire.from_result(result(made), {}).run
    assert (run.code, run.signal, run.status, run.message) == expected
    assert (run.stdout, run.output, run.cpu_time, run.wall_time, run.memory) == ("x", "x", 0, 2, 7)


def test_every_verdict_is_in_the_test_above() -> None:
    assert {made.verdict for made, _ in VERDICTS} == set(Verdict) - {Verdict.COMPILE_ERROR}  # that is a job's, not a stage's


def test_run_repeats_a_compile_stage_that_failed() -> None:
    execution = wire.from_result(result(None, stage(Verdict.RUNTIME_ERROR, exit_code=1), Verdict.COMPILE_ERROR), {})
    assert execution.run == execution.compile


def test_run_says_why_it_never_came() -> None:
    execution = wire.from_result(result(None, stage(Verdict.OK, exit_code=0)), {})
    assert (execution.run.status, execution.run.message, execution.run.code) == ("XX", "why", None)
    assert wire.from_result(result(None), {}).run.status == "XX"
