"""Errors of shared programs: their stderr, what `go run` adds, and why a program failed silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from firebox.domain.errors import InvalidRequest
from firebox.domain.model import Chunk, Job, Result, RuntimeName, StageResult, Verdict
from firebox.service.callers import Caller
from firebox.service.snippets import Snippets
from firebox.settings.settings import load_settings
from firebox.storage.stores import open_stores
from tests.support.results import result_with, stage_with

CALLER = Caller(address="127.0.0.1")


def stage(verdict: Verdict, stderr: str, *, exit_code: int | None = None, signal: str | None = None) -> StageResult:
    chunks = (Chunk("stderr", stderr.encode()),) if stderr else ()
    return stage_with(verdict=verdict, reason="why", exit_code=exit_code, signal=signal, chunks=chunks)


def result_of(run: StageResult, language: str) -> Result:
    return result_with(runtime=RuntimeName(language, "1.0.0"), verdict=run.verdict, reason=run.reason, run=run)


@pytest.mark.parametrize(
    ("language", "run", "error", "complaint"),
    [
        ("go", stage(Verdict.OK, "", exit_code=0), "", ""),
        ("go", stage(Verdict.OK, "note\n", exit_code=0), "note\n", "note\n"),
        ("go", stage(Verdict.RUNTIME_ERROR, "panic: x\n", exit_code=2), "panic: x\nexit status 2\n", "panic: x\nexit status 2\n"),
        ("go", stage(Verdict.RUNTIME_ERROR, "", exit_code=3), "exit status 3\n", "exit status 3\n"),
        ("go", stage(Verdict.SIGNAL, "", signal="SIGSEGV"), "signal: segmentation fault\n", "signal: segmentation fault\n"),
        ("go", stage(Verdict.WALL_TIME, "", signal="SIGKILL"), "why", "why"),
        ("go", stage(Verdict.MEMORY, "so far\n", signal="SIGKILL"), "so far\n", "so far\n"),
        (
            "go",
            stage(Verdict.RUNTIME_ERROR, "syntax error: x\n", exit_code=1),
            "syntax error: x",
            "syntax error: x\nexit status 1\n",
        ),
        ("bash", stage(Verdict.RUNTIME_ERROR, "wrong\n", exit_code=2), "wrong\n", "wrong\n"),
        ("bash", stage(Verdict.RUNTIME_ERROR, "", exit_code=2), "why", "why"),
    ],
)
async def test_the_errors_of_a_program(language: str, run: StageResult, error: str, complaint: str, tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path}, None, {})

    async def execute(_job: Job, _caller: Caller) -> Result:
        return result_of(run, language)

    async with open_stores(settings) as stores:
        snippets = Snippets(stores, settings, execute)
        outcome = await snippets.run("", language=language, caller=CALLER)
        assert (outcome.error, outcome.complaint) == (error, complaint)
        if complaint:
            with pytest.raises(InvalidRequest) as refused:
                await snippets.share("", language=language, caller=CALLER)
            assert refused.value.message == complaint
        else:
            assert await snippets.share("", language=language, caller=CALLER) == 1
