"""Piston's six limits: the order of the checks, their words, and what -1 and nothing mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from firebox.domain.errors import FireboxError, UnknownRuntime
from firebox.domain.limits import LimitRequest, OutputMode
from firebox.doors.piston.request import read_limits, to_job
from firebox.doors.piston.wire import from_error
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import load_settings
from tests.support.server import RunningServer

PYTHON = Runtime(language="python", version="3.11.7", aliases=("py",), main_name="main.py", run=("python3", "{main}"))


def read(document: dict[str, Any], **environment: str) -> tuple[LimitRequest, LimitRequest]:
    return read_limits(document, PYTHON, load_settings({}, None, environment))


def refusal(document: dict[str, Any], **environment: str) -> str:
    with pytest.raises(FireboxError) as refused:
        read(document, **environment)
    status, message = from_error(refused.value)
    assert status == 400
    return message.message


def test_limits_are_those_of_the_model() -> None:
    document = {
        "compile_timeout": 1000, "compile_cpu_time": 2000, "compile_memory_limit": 3000,
        "run_timeout": 4000.4, "run_cpu_time": 0.2, "run_memory_limit": 1e6,
    }  # fmt: skip
    compile_limits, run_limits = read(document)
    kill = OutputMode.KILL
    assert compile_limits == LimitRequest(wall_ms=1000, cpu_ms=2000, memory_bytes=3000, output_mode=kill)
    assert run_limits == LimitRequest(wall_ms=4000, cpu_ms=1, memory_bytes=1_000_000, output_mode=kill)


@pytest.mark.parametrize("nothing", [None, 0, 0.0, "", False])
def test_nothing_is_the_default(nothing: object) -> None:
    kill = LimitRequest(output_mode=OutputMode.KILL)
    assert read({"run_timeout": nothing, "compile_memory_limit": nothing}) == (kill, kill)


@pytest.mark.parametrize("value", ["3000", "x", True, [3000], {"ms": 3000}])
def test_what_is_no_number_is_refused(value: object) -> None:
    assert refusal({"run_timeout": value}) == "If specified, run_timeout must be a number"


@pytest.mark.parametrize("value", [60_001, 60_000.5, 2**63, 10**400, 1e308, float("inf")])
def test_what_is_above_the_maximum_is_refused(value: float) -> None:
    assert refusal({"run_timeout": value}) == "run_timeout cannot exceed the configured limit of 60000"


@pytest.mark.parametrize("value", [2**53 + 1, 10**400, 1e308, float("inf")])
def test_without_a_maximum_there_is_still_an_end(value: float) -> None:
    message = refusal({"run_cpu_time": value}, FIREBOX_MAX_RUN_CPU_MS="0")
    assert message == f"run_cpu_time cannot exceed the configured limit of {2**53}"


@pytest.mark.parametrize("key", ["run_timeout", "compile_timeout", "run_cpu_time", "compile_cpu_time"])
@pytest.mark.parametrize("value", [-1, -0.5, -1e308, float("-inf")])
def test_negative_times_are_refused(key: str, value: float) -> None:
    assert refusal({key: value}) == f"{key} must be non-negative"


def test_minus_one_is_the_default_memory_where_the_operator_set_none_by_pistons_name() -> None:
    assert read({"run_memory_limit": -1})[1].memory_bytes is None
    assert read({"run_memory_limit": -1}, FIREBOX_RUN_MEMORY_BYTES="100MB")[1].memory_bytes is None


def test_minus_one_is_no_memory_limit_where_there_is_no_maximum() -> None:
    assert read({"run_memory_limit": -1}, FIREBOX_MAX_RUN_MEMORY_BYTES="0")[1].memory_bytes == 0
    assert read({"run_memory_limit": -1}, PISTON_RUN_MEMORY_LIMIT="-1")[1].memory_bytes == 0


def test_minus_one_is_refused_where_the_operator_set_a_limit_by_pistons_name() -> None:
    environment = {"PISTON_RUN_MEMORY_LIMIT": "100000000"}
    assert refusal({"run_memory_limit": -1}, **environment) == "run_memory_limit must be non-negative"
    assert read({"compile_memory_limit": -1}, **environment)[0].memory_bytes is None


def test_the_maximum_of_the_language_counts() -> None:
    overrides = '{"python": {"run_timeout": 90000}}'
    assert read({"run_timeout": 80_000}, PISTON_LIMIT_OVERRIDES=overrides)[1].wall_ms == 80_000


def find(language: str, version: str) -> Runtime:
    if language not in PYTHON.names:
        raise UnknownRuntime(language, version)
    return PYTHON


Spoil = Callable[[dict[str, Any], list[dict[str, Any]]], object]

WRONG: list[tuple[Spoil, str]] = [
    (lambda body, files: body.update(language=None), "language is required as a string"),
    (lambda body, files: body.update(version=3), "version is required as a string"),
    (lambda body, files: body.update(files="none"), "files is required as an array"),
    (lambda body, files: files.append({"content": 1}), "files[1].content is required as a string"),
    (lambda body, files: body.update(language="klingon"), "klingon-* runtime is unknown"),
    (lambda body, files: files[0].update(encoding="hex"), "files must include at least one utf8 encoded file"),
    (lambda body, files: body.update(compile_memory_limit="1"), "If specified, compile_memory_limit must be a number"),
    (
        lambda body, files: body.update(run_memory_limit=1e300),
        "run_memory_limit cannot exceed the configured limit of 4294967296",
    ),
    (lambda body, files: body.update(compile_timeout=-1), "compile_timeout must be non-negative"),
    (lambda body, files: body.update(run_timeout=1e300), "run_timeout cannot exceed the configured limit of 60000"),
    (lambda body, files: body.update(compile_cpu_time="1"), "If specified, compile_cpu_time must be a number"),
    (lambda body, files: body.update(run_cpu_time=-1), "run_cpu_time must be non-negative"),
    (lambda body, files: files[0].update(name=1), "files[0].name must be a string"),
    (lambda body, files: body.update(stdin=1), "stdin must be a string"),
    (lambda body, files: body.update(args="1"), "args must be an array of strings"),
]
"""Everything that can be wrong, in the order in which it is found."""


@pytest.mark.parametrize("first", range(len(WRONG)))
def test_checks_come_in_order(first: int) -> None:
    files: list[dict[str, Any]] = [{"content": ""}]
    body: dict[str, Any] = {"language": "py", "version": "*", "files": files}
    for spoil, _ in reversed(WRONG[first:]):
        spoil(body, files)
    with pytest.raises(FireboxError) as refused:
        to_job(body, find, load_settings({}, None, {}))
    assert from_error(refused.value)[1].message == WRONG[first][1]


def test_limits_set_by_pistons_names_hold(start_server: Callable[..., RunningServer]) -> None:
    environment = {
        "PISTON_RUN_TIMEOUT": "700",
        "PISTON_OUTPUT_MAX_SIZE": "1024",
        "PISTON_MAX_FILE_SIZE": "1000",
        "PISTON_MAX_OPEN_FILES": "64",
        "PISTON_DISABLE_NETWORKING": "true",
        "PISTON_LIMIT_OVERRIDES": '{"python": {"run_timeout": 5000, "output_max_size": 4096}}',
    }
    server = start_server("--slots", "2", env=environment)

    def execute(language: str, code: str, **limits: float) -> Any:
        body = {"language": language, "version": "*", "files": [{"content": code}], **limits}
        return httpx.post(f"{server.url}/api/v2/execute", json=body, timeout=60, trust_env=False).json()

    assert execute("bash", "sleep 50")["run"]["status"] == "TO"
    assert execute("bash", "", run_timeout=701) == {"message": "run_timeout cannot exceed the configured limit of 700"}
    assert execute("python", "", run_timeout=5001) == {"message": "run_timeout cannot exceed the configured limit of 5000"}
    assert len(execute("bash", "yes")["run"]["stdout"]) == 1024
    assert len(execute("python", "print('y' * 100000)")["run"]["stdout"]) == 4096
    assert execute("bash", "head -c 2000 /dev/zero > x")["run"]["code"] != 0
    assert execute("bash", "ulimit -n")["run"]["stdout"] == "64\n"
