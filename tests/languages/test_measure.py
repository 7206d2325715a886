"""Measure package sizes and response times of a hello, first and later: for the table in docs/reference/languages.md.

Collected where FIREBOX_LANGUAGES_MEASURE=1 asks for it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.languages.conftest import Ready
from tests.languages.test_languages import check_native, run_native
from tests.support.languages import Case, Program, chosen_cases, read_programs, write_measurement

WARM_RUNS = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in chosen_cases()])
def test_measure(case: Case, ready: Callable[[Case, str], Ready]) -> None:
    programs = read_programs(case.stem)
    language = ready(case, case.selector(programs))
    first_ms = _take_ms(language, programs.hello, "none")
    warm_ms = [_take_ms(language, programs.hello, "none") for _ in range(WARM_RUNS)]
    kept_ms: list[float] = []
    if language.runtime.cache == "binary":
        _take_ms(language, programs.hello, "binary")
        kept_ms = [_take_ms(language, programs.hello, "binary") for _ in range(WARM_RUNS)]
    write_measurement(
        {
            "package": case.recipe.package,
            "series": case.recipe.series,
            "language": language.runtime.language,
            "version": language.runtime.version,
            "selector": language.selector,
            "suite": case.recipe.suite,
            "image_bytes": language.image_bytes,
            "base_bytes": language.base_bytes,
            "first_run_ms": round(first_ms, 1),
            "warm_run_ms": round(statistics.median(warm_ms), 1),
            "kept_run_ms": round(statistics.median(kept_ms), 1) if kept_ms else None,
            "machine": _machine(),
            "day": f"{datetime.now(UTC):%Y-%m-%d}",
        }
    )


def _take_ms(language: Ready, program: Program, cache: str) -> float:
    """Run hello once; give how long the client waited."""
    began = time.perf_counter()
    result = run_native(language, "hello", program, cache=cache)
    taken_ms = (time.perf_counter() - began) * 1000
    check_native("hello", program, result)
    return taken_ms


def _machine() -> str:
    """Name the processor and how many of it there are."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{os.cpu_count()} × {model}"
