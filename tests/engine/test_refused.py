"""What cannot be started, or not within its limits, ends as the job's own fault; `internal` means ours."""

from __future__ import annotations

import msgspec
import pytest

from firebox.domain.errors import SettingsError
from firebox.domain.limits import NUMBER_NAMES, STAGES, LimitRequest, StageName, least_limit
from firebox.domain.model import File, Job, Verdict
from firebox.settings.settings import load_settings
from tests.engine.conftest import Engine, job
from tests.engine.test_cache import MakeEngine

MIB = 1 << 20


def limit(name: str, value: int) -> LimitRequest:
    return msgspec.convert({name: value}, LimitRequest)


@pytest.mark.parametrize(
    ("script", "words", "exit_code"),
    [
        ("true", "cannot start ./a.out: No such file or directory", 127),
        ("echo 'echo hi' > a.out", "cannot start ./a.out: Permission denied", 126),
        ("echo no program > a.out; chmod +x a.out", "cannot start ./a.out: Exec format error", 126),
        ("true > a.out; chmod +x a.out", "cannot start ./a.out: Exec format error", 126),
        ("mkdir a.out", "cannot start ./a.out: No such file or directory", 127),
        ("mkdir a.out; touch a.out/x", "cannot start ./a.out: Permission denied", 126),
        ("echo '#!/no/such/interpreter' > a.out; chmod +x a.out", "cannot start ./a.out: No such file or directory", 127),
        ("echo '#!./a.out' > a.out; chmod +x a.out", "cannot start ./a.out: Too many levels of symbolic links", 126),
        ("ln -s /bin/true a.out", "cannot start ./a.out: No such file or directory", 127),
        ("head -c 3000000 /dev/zero > a.out", "the files do not fit into what the run stage may write: 1000000 bytes", 126),
    ],
)
async def test_what_a_compile_stage_left_is_no_program(engine: Engine, script: str, words: str, exit_code: int) -> None:
    result = await engine.result(job("made", script, run_limits=LimitRequest(writable_bytes=1_000_000)))
    assert result.run is not None
    assert (result.verdict, result.run.exit_code) == (Verdict.RUNTIME_ERROR, exit_code)
    assert result.reason.startswith(words)
    assert result.run.stderr.startswith(f"firebox: {words}".encode())


async def test_what_a_shell_can_start_is_started(engine: Engine) -> None:
    result = await engine.result(job("made", "printf '#!/bin/sh\\necho hi' > a.out; chmod +x a.out"))
    assert result.run is not None
    assert (result.verdict, result.run.stdout) == (Verdict.OK, b"hi\n")


async def test_a_toolchain_that_is_gone_is_our_fault(engine: Engine) -> None:
    result = await engine.result(job("absent", ""))
    assert result.verdict is Verdict.INTERNAL
    assert "no-such-tool" in result.reason


async def test_many_long_names_and_arguments_reach_the_program(engine: Engine) -> None:
    files = tuple(File(f"{number:0>200}", b"", source=False) for number in range(2000))
    code = File("main.sh", b"set -- * && echo $#")
    result = await engine.result(Job(language="bash", files=(code, *files), args=("x" * 100_000,) * 9))
    assert result.run is not None
    assert result.run.stdout == b"2001\n"


async def test_arguments_that_the_kernel_does_not_pass_are_the_jobs_fault(engine: Engine) -> None:
    result = await engine.result(job("bash", "true", args=("x" * 100_000,) * 80))
    assert (result.verdict, result.reason) == (
        Verdict.RUNTIME_ERROR,
        "arguments, variables and names of files are too long together",
    )


LEAST = [
    (stage, name)
    for stage in STAGES
    for name in ("memory_bytes", "processes", "open_files", "writable_bytes", "writable_inodes")
    if least_limit(stage, name) > 1
]


@pytest.mark.parametrize(("stage", "name"), LEAST)
@pytest.mark.parametrize("prefix", ["", "max_"])
def test_an_operators_limit_too_small_for_the_sandbox_is_refused_with_the_least(prefix: str, stage: StageName, name: str) -> None:
    setting, least = f"{prefix}{stage}_{name}", least_limit(stage, name)
    load_settings({setting: least}, environ={})
    with pytest.raises(SettingsError, match=f"{least} or more"):
        load_settings({setting: least - 1}, environ={})


SMALL = [
    *((name, least_limit(stage, name) * factor) for stage, name in LEAST if stage == "run" for factor in (1, 2)),
    *((name, value) for name in ("wall_ms", "cpu_ms", "processes", "file_size_bytes", "output_bytes") for value in (1, 3)),
    ("memory_bytes", 16 * MIB),
    *((name, 2**53) for name in NUMBER_NAMES),
]


@pytest.mark.parametrize("stage", ["compile", "run"])
async def test_no_limit_makes_an_error_of_ours(make_engine: MakeEngine, stage: StageName) -> None:
    """Small and huge ones, of a stage that does a little of everything."""
    engine = await make_engine(**{f"max_{stage}_{name}": 0 for name in NUMBER_NAMES})
    script = "echo out; cat main.sh > a.out; chmod +x a.out; /bin/true & wait; echo end"
    for name, small in SMALL:
        value = max(small, least_limit(stage, name))
        limits = {f"{stage}_limits": limit(name, value)}
        result = await engine.result(job("made", f"#!/bin/sh\n{script}", **limits))
        assert result.verdict is not Verdict.INTERNAL, (name, value, result.reason)


async def test_files_larger_than_the_memory_are_a_matter_of_memory(engine: Engine) -> None:
    files = (File("main.sh", b"true"), File("data", bytes(12 * MIB), source=False))
    result = await engine.result(Job(language="bash", files=files, run_limits=LimitRequest(memory_bytes=6 * MIB)))
    assert result.verdict is Verdict.MEMORY
