"""Every packaged language, built, tried, installed and run by a real server: eight programs through two doors, and its commands.

`make test-languages` takes all recipes, or those that FIREBOX_LANGUAGES names; any other test run takes six from nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.languages.conftest import ANSWER_TIMEOUT_S, Ready
from tests.support.languages import (
    ARGUMENTS,
    EXPECTED,
    INPUT,
    STATUS,
    STDERR,
    Case,
    Program,
    can_wait,
    chosen_cases,
    read_programs,
    typed_lines,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ATTEMPTS = 10
LOOP_MS = 1500
"""What an endless program gets."""
COMMAND_MS = 60_000
"""What a command gets that tells its version: some start a virtual machine first."""
CASES = [pytest.param(case, id=case.id) for case in chosen_cases()]


@pytest.mark.parametrize("door", ["native", "piston"])
@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("case", CASES)
def test_program(case: Case, kind: str, door: str, ready: Callable[[Case, str], Ready]) -> None:
    programs = read_programs(case.stem)
    program = programs.of(kind)
    if program.without:
        return  # test_programs.py sees to it that the reason is written down
    language = ready(case, case.selector(programs))
    if door == "native":
        check_native(kind, program, run_native(language, kind, program))
    else:
        check_piston(kind, program, run_piston(language, kind, program))


@pytest.mark.parametrize("case", CASES)
def test_commands_that_people_type(case: Case, ready: Callable[[Case, str], Ready]) -> None:
    programs = read_programs(case.stem)
    language = ready(case, case.selector(programs))
    assert sorted(language.runtime.commands) == sorted(case.definition.commands)
    answers = {line: run_command(language, line) for line in typed_lines(case, programs)}
    failed = {line: result["run"]["output"] for line, result in answers.items() if result["verdict"] != "ok"}
    assert failed == {}


def run_command(language: Ready, line: str) -> Any:
    """Run a line as typed in a terminal, with an empty standard input."""
    body = {
        "language": language.selector,
        "version": language.runtime.version,
        "files": [{"name": "main", "content": ""}],
        "command": line,
        "limits": {"run": {"wall_ms": COMMAND_MS, "cpu_ms": COMMAND_MS}},
    }
    answer = httpx.post(f"{language.server.url}/api/v1/runs", json=body, timeout=ANSWER_TIMEOUT_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in chosen_cases() if can_wait(case)])
def test_program_that_was_prestarted(case: Case, ready: Callable[[Case, str], Ready]) -> None:
    programs = read_programs(case.stem)
    language = ready(case, case.selector(programs))
    program = programs.of("hello")
    started_ahead = 0
    for attempt in range(ATTEMPTS):
        before = count_started_ahead(language)
        check_native("hello", program, run_native(language, "hello", program, cache="none"))
        started_ahead += count_started_ahead(language) > before
        if started_ahead == 2:
            return
        time.sleep(0.3 * (attempt + 1))
    raise AssertionError(f"{started_ahead} of {ATTEMPTS} runs went on with a program that had been started already")


def count_started_ahead(language: Ready) -> float:
    lines = httpx.get(f"{language.server.url}/api/v1/metrics", timeout=ANSWER_TIMEOUT_S, trust_env=False).text.splitlines()
    [value] = [line.split()[1] for line in lines if line.startswith("firebox_started_ahead")]
    return float(value)


def run_native(language: Ready, kind: str, program: Program, *, cache: str | None = None) -> Any:
    """Run a program through the native API. cache: what may be kept and served again; None: what is usual."""
    body: dict[str, Any] = {
        "language": language.selector,
        "version": language.runtime.version,
        "files": [{"name": name, "content": content} for name, content in program.files.items()],
        "stdin": INPUT if kind == "stdin" else "",
        "args": ARGUMENTS if kind == "args" else [],
    }
    if cache is not None:
        body["cache"] = cache
    if kind == "loop":
        body["limits"] = {"run": {"wall_ms": LOOP_MS}}
    answer = httpx.post(f"{language.server.url}/api/v1/runs", json=body, timeout=ANSWER_TIMEOUT_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert result["runtime"] == {"language": language.runtime.language, "version": language.runtime.version}
    return result


def check_native(kind: str, program: Program, result: Any) -> None:
    verdict, run = result["verdict"], result["run"]
    if kind == "compile_error":
        if result["compile"] is None:
            assert (verdict, run["exit_code"] != 0) == ("runtime_error", True), result
            assert run["output"], result
        else:
            assert verdict == "compile_error", result
            assert result["compile"]["output"], result
        return
    assert run is not None, result
    if kind == "loop":
        assert verdict in {"wall_time", "cpu_time"}, result
        assert run["stdout"] == "", result
        return
    wanted = ("runtime_error", STATUS) if kind == "exit" else ("ok", 0)
    assert (verdict, run["exit_code"]) == wanted, result
    assert run["stdout"] == _stdout(kind, program), result
    assert run["stderr"] == (STDERR if kind == "stderr" else ""), result


def run_piston(language: Ready, kind: str, program: Program) -> Any:
    """Run a program through Piston's API, version 2."""
    body: dict[str, Any] = {
        "language": language.selector,
        "version": language.runtime.version,
        "files": [{"name": name, "content": content} for name, content in program.files.items()],
        "stdin": INPUT if kind == "stdin" else "",
        "args": ARGUMENTS if kind == "args" else [],
    }
    if kind == "loop":
        body["run_timeout"] = LOOP_MS
    answer = httpx.post(f"{language.server.url}/api/v2/execute", json=body, timeout=ANSWER_TIMEOUT_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert (result["language"], result["version"]) == (language.runtime.language, language.runtime.version)
    return result


def check_piston(kind: str, program: Program, result: Any) -> None:
    run = result["run"]
    if kind == "compile_error":
        # Where compiling fails, `run` repeats what the compiler did.
        assert run["code"] != 0, result
        assert run["output"], result
        return
    if kind == "loop":
        assert (run["status"], run["signal"], run["stdout"]) == ("TO", "SIGKILL", ""), result
        return
    assert run["code"] == (STATUS if kind == "exit" else 0), result
    assert run["stdout"] == _stdout(kind, program), result
    assert run["stderr"] == (STDERR if kind == "stderr" else ""), result


def _stdout(kind: str, program: Program) -> str:
    return EXPECTED[kind] if program.stdout is None else program.stdout
