"""Jobs with a person at the other end: their defaults, their maximum, their idle time, their slots."""

from __future__ import annotations

import pytest

from firebox.domain.errors import LimitTooHigh
from firebox.domain.limits import LimitRequest, Limits, NamedLanguage
from firebox.domain.model import Finished, Output, Result, Stdin, Verdict
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import load_settings
from tests.engine.conftest import job
from tests.engine.test_cache import MakeEngine


def limits(flags: dict[str, object], request: LimitRequest | None = None) -> Limits:
    policy = limit_policy(load_settings(flags, environ={}))
    return policy.decide("run", NamedLanguage(("bash",)), request or LimitRequest(), attended=True)


@pytest.mark.parametrize(
    ("flags", "wall_ms", "cpu_ms"),
    [
        ({}, 900_000, 10_000),
        ({"run_wall_ms": 5000, "run_cpu_ms": 20_000}, 900_000, 20_000),
        ({"interactive_wall_ms": 1}, 3000, 10_000),
        ({"max_run_wall_ms": 4000, "max_run_cpu_ms": 4000}, 4000, 4000),
        ({"max_run_wall_ms": 0, "run_cpu_ms": 0, "max_run_cpu_ms": 0}, 900_000, 0),
    ],
)
def test_defaults_are_longer_and_below_a_maximum_that_was_set(flags: dict[str, object], wall_ms: int, cpu_ms: int) -> None:
    decided = limits(flags)
    assert (decided.wall_ms, decided.cpu_ms) == (wall_ms, cpu_ms)


def test_a_request_may_ask_for_as_much() -> None:
    assert limits({}, LimitRequest(wall_ms=800_000)).wall_ms == 800_000
    with pytest.raises(LimitTooHigh):
        limits({}, LimitRequest(wall_ms=900_001))
    with pytest.raises(LimitTooHigh):
        limits({"max_run_wall_ms": 4000}, LimitRequest(wall_ms=5000))


async def test_idle_means_neither_input_nor_output(make_engine: MakeEngine) -> None:
    engine = await make_engine(interactive_idle_ms=800, run_wall_ms=10)
    result: Result | None = None
    code = "for n in 1 2 3 4; do sleep 0.3; echo $n; done; read line; echo $line; read line"
    async with engine.executor.submit(job("bash", code, interactive=True, attended=True)) as run:
        async for event in run.events():
            if isinstance(event, Output) and event.data.endswith(b"4\n"):
                await run.send(Stdin(b"typed\n"))
            elif isinstance(event, Finished):
                result = event.result
    assert result is not None
    assert result.run is not None
    assert result.run.stdout == b"1\n2\n3\n4\ntyped\n"
    assert (result.verdict, result.reason) == (Verdict.WALL_TIME, "idle: no input and no output for 800 ms")


async def test_people_and_programs_do_not_take_each_others_slots(make_engine: MakeEngine) -> None:
    engine = await make_engine(slots=1, interactive_slots=1)
    async with engine.executor.submit(job("bash", "sleep 600", attended=True)):
        assert (await engine.result(job("bash", "true"))).verdict is Verdict.OK
    async with engine.executor.submit(job("bash", "sleep 600")):
        assert (await engine.result(job("bash", "true", attended=True))).verdict is Verdict.OK
