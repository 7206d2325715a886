"""The same limit through every door: absent, no cap, at its maximum, above it.

A client's own limit is refused above the operator's maximum. Where a protocol has no limits, those of its door's settings are
lowered to the maximum.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import pytest

from firebox.cli.run.run_job import read_limits
from firebox.domain.errors import FireboxError, InvalidRequest, LimitTooHigh
from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Job, Result, StageResult, Verdict
from firebox.doors.glot import wire as glot
from firebox.doors.grounds import wire as grounds
from firebox.doors.native import live
from firebox.doors.native import wire as native
from firebox.doors.piston import request as piston
from firebox.doors.stdio import wire as stdio
from firebox.engine.plan import Planner
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.callers import Caller
from firebox.service.languages import Native
from firebox.service.snippets import Snippets
from firebox.service.validation import check_job
from firebox.settings.limit_policy import NO_MAXIMA
from firebox.settings.settings import Settings, load_settings
from firebox.storage.stores import open_stores
from tests.support.results import result_with, stage_with

MAXIMUM = 1 << 30
"""In range for every limit, in milliseconds, bytes or processes."""
DEFAULT = 1 << 27
PISTON_KEYS = {"wall_ms": "run_timeout", "cpu_ms": "run_cpu_time", "memory_bytes": "run_memory_limit"}

Make = Callable[[str, int | None, Settings, Runtime], Awaitable[Job]]


def runtime_that_wants(limits: LimitRequest) -> Runtime:
    return Runtime(
        language="bash", version="5.0.0", main_name="main.sh", run=("bash", "{main}"), run_limits=limits, installed="bash-5.0.0"
    )


async def through_native(limit: str, value: int | None, _settings: Settings, _runtime: Runtime) -> Job:
    body = {"language": "bash", "code": "true", "limits": {"run": {} if value is None else {limit: value}}}
    return native.to_job(msgspec.json.decode(msgspec.json.encode(body), type=native.RunRequest))


async def through_native_live(limit: str, value: int | None, _settings: Settings, _runtime: Runtime) -> Job:
    body = {"type": "start", "language": "bash", "code": "true", "limits": {"run": {} if value is None else {limit: value}}}
    start = msgspec.json.decode(msgspec.json.encode(body), type=live.Start)
    return msgspec.structs.replace(native.to_job(start), interactive=True, attended=True)


async def through_piston(limit: str, value: int | None, settings: Settings, runtime: Runtime) -> Job:
    document: dict[str, Any] = {"language": "bash", "version": "*", "files": [{"name": "main.sh", "content": "true"}]}
    document |= {} if value is None else {PISTON_KEYS[limit]: value}
    return piston.to_job(document, lambda _language, _version: runtime, settings)


async def through_piston_connect(limit: str, value: int | None, settings: Settings, runtime: Runtime) -> Job:
    document: dict[str, Any] = {"language": "bash", "version": "*", "files": [{"name": "main.sh", "content": "true"}]}
    document |= {} if value is None else {PISTON_KEYS[limit]: value}
    return piston.to_job(document, lambda _language, _version: runtime, settings, interactive=True)


async def through_piston_package(limit: str, value: int | None, settings: Settings, runtime: Runtime) -> Job:
    return piston.to_package_job({"code": "true"} | ({} if value is None else {PISTON_KEYS[limit]: value}), runtime, settings)


async def through_command_line(limit: str, value: int | None, _settings: Settings, _runtime: Runtime) -> Job:
    limits = read_limits([] if value is None else [f"{limit}={value}"], LimitRequest())
    return msgspec.structs.replace(stdio.to_job(STDIO_BODY), run_limits=limits["run"])


async def through_glot(_limit: str, _value: int | None, settings: Settings, _runtime: Runtime) -> Job:
    return glot.to_job(glot.RunRequest([glot.FileEntry("main.sh", "true")]), Native("bash", "*"), settings)


async def through_grounds(_limit: str, _value: int | None, settings: Settings, runtime: Runtime) -> Job:
    return grounds.to_job(grounds.Request("bash", "true"), runtime, settings)


async def through_runner(_limit: str, _value: int | None, settings: Settings, runtime: Runtime) -> Job:
    jobs: list[Job] = []

    async def execute(job: Job, _caller: Caller) -> Result:
        jobs.append(job)
        stage: StageResult = stage_with(verdict=Verdict.OK, exit_code=0)
        return result_with(verdict=Verdict.OK, run=stage)

    async with open_stores(settings) as stores:
        await Snippets(stores, settings, execute).run("true", language=runtime.language, caller=Caller(address="127.0.0.1"))
    return jobs[0]


async def through_stdio(_limit: str, _value: int | None, _settings: Settings, _runtime: Runtime) -> Job:
    return stdio.to_job(STDIO_BODY)


STDIO_BODY = b'{"language": "bash", "files": [{"name": "main.sh", "content": "true"}]}'


class Way(NamedTuple):
    """How a limit comes in.

    absent, zero, at, above: what applies when nothing, 0, the maximum or one more is asked, or the error; None: cannot be asked.
    setting: where the value is not the client's, the setting it comes from; "" for a wish of the runtime.
    """

    name: str
    make: Make
    limits: tuple[str, ...]
    absent: int | None
    zero: int | type[FireboxError] | None
    above: int | type[FireboxError] | None
    setting: Mapping[str, str] | None = None


CAPS, COUNTS = ("cpu_ms", "memory_bytes", "stack_bytes"), ("wall_ms", "processes", "open_files", "output_bytes", "writable_bytes")
PISTON = tuple(PISTON_KEYS)
WAYS = [
    Way("native", through_native, CAPS, DEFAULT, LimitTooHigh, LimitTooHigh),
    Way("native", through_native, COUNTS, DEFAULT, InvalidRequest, LimitTooHigh),
    Way("native-live", through_native_live, CAPS, DEFAULT, LimitTooHigh, LimitTooHigh),
    Way("native-live", through_native_live, COUNTS, DEFAULT, InvalidRequest, LimitTooHigh),
    # 0 asks for nothing in Piston.
    Way("piston", through_piston, PISTON, DEFAULT, DEFAULT, LimitTooHigh),
    Way("piston-connect", through_piston_connect, PISTON, DEFAULT, DEFAULT, LimitTooHigh),
    Way("piston-package", through_piston_package, PISTON, DEFAULT, DEFAULT, LimitTooHigh),
    Way("command-line", through_command_line, CAPS, DEFAULT, LimitTooHigh, LimitTooHigh),
    Way("command-line", through_command_line, COUNTS, DEFAULT, InvalidRequest, LimitTooHigh),
    Way("stdio", through_stdio, (*CAPS, *COUNTS), DEFAULT, None, None),
    Way(
        "glot", through_glot, ("wall_ms", "cpu_ms", "output_bytes"), None, None, MAXIMUM,
        {"wall_ms": "docker_run_timeout_ms", "cpu_ms": "docker_run_timeout_ms", "output_bytes": "glot_output_bytes"},
    ),
    Way("grounds", through_grounds, ("wall_ms",), None, None, MAXIMUM, {"wall_ms": "grounds_wall_ms"}),
    Way("grounds", through_grounds, ("memory_bytes",), None, MAXIMUM, MAXIMUM, {"memory_bytes": "grounds_memory_bytes"}),
    Way("runner", through_runner, ("wall_ms", "cpu_ms"), None, None, MAXIMUM,
        {"wall_ms": "runner_timeout_ms", "cpu_ms": "runner_timeout_ms"}),
    Way("runtime", through_stdio, CAPS, None, MAXIMUM, MAXIMUM, {}),
    Way("runtime", through_stdio, COUNTS, None, None, MAXIMUM, {}),
]  # fmt: skip


def cases() -> list[Any]:
    found: list[Any] = []
    for way in WAYS:
        for limit in way.limits:
            asked = {"absent": (None, way.absent), "zero": (0, way.zero), "above": (MAXIMUM + 1, way.above)}
            asked["at-maximum"] = (MAXIMUM, None if way.above is None else MAXIMUM)
            found += [
                pytest.param(way, limit, value, expected, id=f"{way.name}-{limit}-{case}")
                for case, (value, expected) in asked.items()
                if expected is not None
            ]
    return found


async def decide(way: Way, limit: str, value: int | None, flags: Mapping[str, object]) -> int:
    """Return what applies to a job as the service and the engine decide it."""
    wishes = LimitRequest()
    if value is not None and way.setting is not None:
        if limit in way.setting:
            flags = {**flags, way.setting[limit]: value}
        else:
            wishes = msgspec.convert({limit: value}, LimitRequest)
    settings = load_settings(flags, environ={})
    runtime = runtime_that_wants(wishes)
    job = await way.make(limit, value, settings, runtime)
    job = msgspec.structs.replace(job, files=(File(runtime.main_name, b"true"),))
    check_job(job)
    return int(getattr(Planner(settings, Registry([runtime])).plan(job).run_limits, limit))


@pytest.mark.parametrize(("way", "limit", "value", "expected"), cases())
async def test_a_limit_under_a_maximum(
    way: Way, limit: str, value: int | None, expected: int | type[FireboxError], tmp_path: Any
) -> None:
    flags: dict[str, object] = {f"max_run_{limit}": MAXIMUM, "data_dir": tmp_path}
    if way.setting != {}:  # else a wish of the runtime would not count
        flags[f"run_{limit}"] = DEFAULT
    if isinstance(expected, int):
        assert await decide(way, limit, value, flags) == expected
        return
    with pytest.raises(expected):
        await decide(way, limit, value, flags)


@pytest.mark.parametrize(("way", "limit"), [(way, limit) for way in WAYS for limit in way.limits if way.above is not None])
async def test_a_limit_without_a_maximum(way: Way, limit: str, tmp_path: Any) -> None:
    flags = {**NO_MAXIMA, "data_dir": tmp_path}
    assert await decide(way, limit, MAXIMUM + 1, flags) == MAXIMUM + 1
    if way.zero in (LimitTooHigh, MAXIMUM) and limit != "stack_bytes":
        assert await decide(way, limit, 0, flags) == 0, "no cap"
