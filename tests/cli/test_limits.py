"""Limits as a person types them."""

from __future__ import annotations

import pytest

from firebox.cli.limits import read_limit, read_limits
from firebox.errors import InvalidRequest
from firebox.model import LimitRequest, OutputMode


def test_names_with_and_without_units_stages_and_the_last_word_wins() -> None:
    limits = read_limits(
        ["wall=5s", "memory_bytes=1k", "compile.cpu=500ms", "compile.open-files=9", "output_mode=kill", "wall_ms=7"],
        LimitRequest(wall_ms=1, processes=3),
    )
    assert limits["run"] == LimitRequest(wall_ms=7, memory_bytes=1024, processes=3, output_mode=OutputMode.KILL)
    assert limits["compile"] == LimitRequest(cpu_ms=500, open_files=9)


@pytest.mark.parametrize(
    ("name", "value", "read"), [("wall_ms", "2s", 2000), ("memory", "256m", 256 << 20), ("processes", "5", 5)]
)
def test_values_are_read_as_their_settings_are(name: str, value: str, read: int) -> None:
    assert read_limit(name, value, where="x") == read


@pytest.mark.parametrize("word", ["wall", "speed=1", "wall=soon", "wall=-1", "wall=", "run.compile.wall=1s", "output_mode=stop"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        read_limits([word], LimitRequest())
