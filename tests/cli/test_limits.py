"""Parsing of limits on the command line."""

from __future__ import annotations

import pytest

from firebox.cli.run.run_job import read_limit, read_limits
from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import LimitRequest, OutputMode, least_limit
from firebox.settings.settings_table import TABLE


def test_names_with_and_without_units_stages_and_the_last_word_wins() -> None:
    limits = read_limits(
        ["wall=5s", "memory_bytes=8000k", "compile.cpu=500ms", "compile.open-files=9", "output_mode=kill", "wall_ms=7"],
        LimitRequest(wall_ms=1, processes=3),
    )
    assert limits["run"] == LimitRequest(wall_ms=7, memory_bytes=8000 << 10, processes=3, output_mode=OutputMode.KILL)
    assert limits["compile"] == LimitRequest(cpu_ms=500, open_files=9)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("wall_ms", "2s", 2000),
        ("wall_ms", "2", 2),
        ("wall", "2", 2000),
        ("wall", "0.5", 500),
        ("cpu", "500ms", 500),
        ("cpu", "1m", 60_000),
        ("memory", "256m", 256 << 20),
        ("memory", "64M", 64 << 20),
        ("memory", "1g", 1 << 30),
        ("memory", "5000000b", 5_000_000),
        ("memory_bytes", "5000000", 5_000_000),
        ("file-size", "1.5k", 1536),
        ("processes", "5", 5),
    ],
)
def test_values_are_read_as_their_settings_are(name: str, value: str, read: int) -> None:
    assert read_limit(name, value, where="x") == read


@pytest.mark.parametrize(
    "word",
    ["wall", "speed=1", "wall=soon", "wall=-1", "wall=", "memory=64", "output=1000", "run.compile.wall=1s", "output_mode=stop"],
)
def test_other_values_are_rejected(word: str) -> None:
    with pytest.raises(InvalidRequest):
        read_limits([word], LimitRequest())


def test_a_size_without_a_unit_is_refused_with_both_meanings() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_limits(["memory=64"], LimitRequest(), where="--memory")
    assert (refused.value.where, refused.value.hint) == ("--memory", "64m for MiB, 64b for bytes")


def test_a_size_that_is_too_small_is_refused_with_the_least() -> None:
    with pytest.raises(InvalidRequest, match=f"at least {least_limit('run', 'memory_bytes')} bytes"):
        read_limits(["memory=1b"], LimitRequest())


def test_every_time_and_size_setting_names_its_unit() -> None:
    unclear = [row.name for row in TABLE if row.kind in {"ms", "s", "bytes"} and row.kind not in row.name.split("_")]
    assert unclear == []
