"""What is decided for a stage when the request, the settings and the machine each have a word."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from firebox.domain.errors import LimitTooHigh
from firebox.domain.model import LimitRequest
from firebox.engine import limits
from firebox.engine.limits import decide
from firebox.settings.settings import load_settings

MIB = 1 << 20


def stack_of(request: LimitRequest, *, maximum_bytes: int = 0, default_bytes: int = 0) -> int:
    settings = load_settings({}, environ={})
    defaults = replace(settings.default_limits("run"), stack_bytes=default_bytes)
    return decide("run", defaults, replace(settings.maximum_limits("run"), stack_bytes=maximum_bytes), request).stack_bytes


@pytest.mark.parametrize("asked", [None, 0])
def test_the_stack_is_as_large_as_the_memory_unless_something_else_is_said(asked: int | None) -> None:
    assert stack_of(LimitRequest(stack_bytes=asked)) == 512 * MIB
    assert stack_of(LimitRequest(stack_bytes=asked, memory_bytes=100 * MIB)) == 100 * MIB


def test_a_stack_that_is_asked_for_or_set_goes_before() -> None:
    assert stack_of(LimitRequest(stack_bytes=8 * MIB)) == 8 * MIB
    assert stack_of(LimitRequest(), default_bytes=16 * MIB) == 16 * MIB


def test_no_stack_is_larger_than_its_maximum() -> None:
    assert stack_of(LimitRequest(), maximum_bytes=64 * MIB) == 64 * MIB
    for asked in (65 * MIB, 0):
        with pytest.raises(LimitTooHigh, match=r"run\.stack_bytes"):
            stack_of(LimitRequest(stack_bytes=asked), maximum_bytes=64 * MIB)


def test_without_a_memory_limit_the_stack_still_has_one() -> None:
    defaults = replace(load_settings({}, environ={}).default_limits("run"), memory_bytes=0)
    maximum = replace(defaults, stack_bytes=0)
    assert 0 < decide("run", defaults, maximum, LimitRequest()).stack_bytes <= limits.STACK_WITHOUT_MEMORY_LIMIT_BYTES
