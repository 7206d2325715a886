"""What applies to a stage when the request, the runtime, the operator and the machine each have a wish."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from types import MappingProxyType

import msgspec
import pytest
from msgspec.structs import replace

from firebox.domain.errors import InvalidRequest, LimitTooHigh
from firebox.domain.limits import (
    NUMBER_NAMES,
    STACK_WITHOUT_MEMORY_LIMIT_BYTES,
    STAGES,
    ZERO_IS_NO_CAP,
    Deadline,
    LimitRequest,
    Limits,
    NamedLanguage,
    StageName,
    check_limits,
    clamp,
    exceeds,
    least_limit,
)
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import load_settings
from firebox.settings.settings_table import ROWS

MIB = 1 << 20
BASH = NamedLanguage(("bash",))


def decide(request: LimitRequest, flags: Mapping[str, object] = MappingProxyType({}), *, clamped: bool = False) -> Limits:
    return limit_policy(load_settings(flags, environ={})).decide("run", BASH, request, clamped=clamped)


def limit(name: str, value: int) -> LimitRequest:
    return msgspec.convert({name: value}, LimitRequest)


@pytest.mark.parametrize(
    ("asked", "maximum", "is_above", "clamped"),
    [(5, 0, False, 5), (5, 5, False, 5), (6, 5, True, 5), (0, 5, True, 5), (0, 0, False, 0), (1, 5, False, 1)],
)
def test_zero_is_no_cap_and_no_maximum(asked: int, maximum: int, is_above: bool, clamped: int) -> None:
    assert exceeds(asked, maximum=maximum) is is_above
    assert clamp(asked, maximum=maximum) == clamped


@pytest.mark.parametrize("name", NUMBER_NAMES)
def test_every_limit_at_and_above_its_maximum(name: str) -> None:
    most = 1 << 30
    flags = {f"run_{name}": most, f"max_run_{name}": most}
    assert getattr(decide(limit(name, most), flags), name) == most
    with pytest.raises(LimitTooHigh, match=f"run.{name} is {most + 1}, at most {most} is allowed"):
        decide(limit(name, most + 1), flags)
    assert getattr(decide(limit(name, most + 1), flags, clamped=True), name) == most
    assert getattr(decide(limit(name, most + 1), {f"max_run_{name}": 0}), name) == most + 1


@pytest.mark.parametrize("name", sorted(ZERO_IS_NO_CAP))
def test_no_cap_is_above_every_maximum(name: str) -> None:
    flags = {f"run_{name}": 64 * MIB, f"max_run_{name}": 64 * MIB}
    with pytest.raises(LimitTooHigh) as refused:
        decide(limit(name, 0), flags)
    assert refused.value.asked == math.inf
    assert getattr(decide(limit(name, 0), flags, clamped=True), name) == 64 * MIB
    decided = getattr(decide(limit(name, 0), {f"max_run_{name}": 0}), name)
    assert decided == (512 * MIB if name == "stack_bytes" else 0)


@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("name", sorted(set(NUMBER_NAMES) - ZERO_IS_NO_CAP))
def test_zero_is_refused_where_it_would_mean_nothing(name: str, clamped: bool) -> None:
    with pytest.raises(InvalidRequest, match="0 is too small"):
        decide(limit(name, 0), clamped=clamped)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", NUMBER_NAMES)
def test_a_limit_too_small_for_the_sandbox_is_refused_with_the_least(stage: StageName, name: str) -> None:
    least = least_limit(stage, name)
    check_limits(stage, limit(name, least))
    for value in {-1, least - 1} - {0}:
        with pytest.raises(InvalidRequest, match=f"at least {least} is needed") as refused:
            check_limits(stage, limit(name, value))
        assert refused.value.where == f"{stage}.{name}"


def test_requests_and_settings_have_the_same_least_values() -> None:
    for stage, name in product(STAGES, NUMBER_NAMES):
        row, least = ROWS[f"{stage}_{name}"], least_limit(stage, name)
        assert row.read(least) == least
        for value in {least - 1, 0} - ({0} if name in ZERO_IS_NO_CAP else set()):
            with pytest.raises(ValueError, match=str(value)):
                row.read(value)


@pytest.mark.parametrize("asked", [None, 0])
def test_the_stack_is_as_large_as_the_memory_by_default(asked: int | None) -> None:
    assert decide(LimitRequest(stack_bytes=asked)).stack_bytes == 512 * MIB
    assert decide(LimitRequest(stack_bytes=asked, memory_bytes=100 * MIB)).stack_bytes == 100 * MIB


def test_a_requested_or_configured_stack_replaces_that() -> None:
    assert decide(LimitRequest(stack_bytes=8 * MIB)).stack_bytes == 8 * MIB
    assert decide(LimitRequest(), {"run_stack_bytes": 16 * MIB}).stack_bytes == 16 * MIB
    assert decide(LimitRequest(), {"max_run_stack_bytes": 64 * MIB}).stack_bytes == 64 * MIB


def test_without_a_memory_limit_the_stack_still_has_one() -> None:
    assert 0 < decide(LimitRequest(), {"run_memory_bytes": 0}).stack_bytes <= STACK_WITHOUT_MEMORY_LIMIT_BYTES


def test_a_default_is_never_above_the_maximum_of_a_more_specific_name() -> None:
    overrides = {"python": {"run_wall_ms": 90_000}, "python-3.12.1": {"max_run_wall_ms": 70_000}}
    policy = limit_policy(load_settings({"limit_overrides": overrides}, environ={}))
    assert policy.default_limits("run", NamedLanguage(("python-3.12.1", "python"))).wall_ms == 70_000
    assert policy.default_limits("run", NamedLanguage(("python",))).wall_ms == 90_000


def test_one_server_has_one_policy() -> None:
    settings = load_settings({}, environ={})
    assert limit_policy(settings) is limit_policy(settings)
    assert limit_policy(settings) is not limit_policy(load_settings({}, environ={}))


@pytest.mark.parametrize(
    ("deadline", "stage", "elapsed_ms", "wall_ms"),
    [
        (Deadline(wall_ms=5000), "compile", 0.0, 3000),
        (Deadline(wall_ms=2000), "compile", 0.0, 2000),
        (Deadline(wall_ms=5000), "run", 1000.0, 3000),
        (Deadline(wall_ms=5000), "run", 4000.4, 1000),
        (Deadline(wall_ms=5000), "run", 9000.0, 1),
        (Deadline(wall_ms=2000, compile_wall_ms=2500), "compile", 0.0, 2500),
        (Deadline(wall_ms=2000, compile_wall_ms=2500), "run", 500.0, 1500),
        (Deadline(wall_ms=2000, compile_wall_ms=2500), "run", 2400.0, 1000),
        (Deadline(wall_ms=2000, compile_wall_ms=1000), "compile", 0.0, 2000),
    ],
)
def test_a_deadline_shortens_the_wall_time_of_a_stage(
    deadline: Deadline, stage: StageName, elapsed_ms: float, wall_ms: int
) -> None:
    limits = replace(decide(LimitRequest()), wall_ms=3000)
    assert deadline.shorten(stage, limits, elapsed_ms=elapsed_ms) == replace(limits, wall_ms=wall_ms)
