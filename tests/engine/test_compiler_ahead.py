"""A compiler that was started before its job came says and makes what a fresh one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Job, Result, StageResult, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.prestart import compile_words
from firebox.runtimes.registry import Registry
from firebox.settings.settings import load_settings
from tests.conftest import require_tool
from tests.engine.conftest import Engine, Warm


def starts(body: str, name: str = "Main") -> str:
    """Return a class whose main() has this body."""
    return f"public class {name} {{ public static void main(String[] a) {{ {body} }} }}"


HELLO = 'System.out.println(String.join("-", a) + " ✓");'
SQUARES = "System.out.println(IntStream.range(0, 9).boxed().map(i -> i * i).collect(Collectors.toList()));"
JAVA = {
    "hello": {"Main.java": starts(HELLO)},
    "another_name": {"Main.java": starts(HELLO, "Other")},
    "two_files": {
        "Main.java": starts("System.out.println(Twice.of(21));"),
        "Twice.java": "class Twice { static int of(int n) { return 2 * n; } }",
    },
    "package": {"shop/Main.java": "package shop; " + starts("System.out.println(1);")},
    "error": {"Main.java": 'class Main { int x = "ü"; void f() { return 1; } }'},
    "warning": {"Main.java": "import java.util.*; " + starts("List l = new ArrayList(); l.add(1);")},
    "deprecated": {"Main.java": starts("new Integer(1); Thread.currentThread().stop();")},
    "no_main": {"Main.java": "class Main { }"},
    "empty": {"Main.java": ""},
    "exit": {"Main.java": starts("System.exit(7);")},
    "exception": {"Main.java": starts('throw new RuntimeException("no");')},
    "records": {"Main.java": starts("System.out.println(new Point(1, 2));") + " record Point(int x, int y) { }"},
    "lambdas": {"Main.java": "import java.util.stream.*; " + starts(SQUARES)},
    "not_utf8": {"Main.java": 'class Main { String s = "\udcff"; }'},
}
LIMITS = LimitRequest(wall_ms=20_000, cpu_ms=20_000)


def job(name: str, **fields: Any) -> Job:
    files = tuple(File(path, text.encode(errors="surrogateescape")) for path, text in JAVA[name].items())
    wanted: dict[str, Any] = {"compile_limits": LIMITS, "run_limits": LIMITS, "cache": "none", **fields}
    return Job(language="java", files=files, **wanted)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Engine, Warm]]:
    require_tool("javac")
    registry = Registry(scan_host("/usr/local/bin:/usr/bin:/bin", shipped_definitions("javac")).runtimes)
    folder = str(tmp_path_factory.mktemp("data"))
    cold = load_settings({"ready_sandboxes": 1, "start_ahead": False, "data_dir": folder}, environ={})
    warm = load_settings({"ready_sandboxes": 1, "data_dir": folder}, environ={})
    async with LocalExecutor(cold, registry) as first, LocalExecutor(warm, registry) as second:
        yield Engine(first), Warm(second)


def told(result: Result) -> list[object]:
    """Everything that a client hears of both stages, but for times."""

    def stage(of: StageResult | None) -> object:
        return of and (of.verdict, of.stdout, of.stderr, of.exit_code, of.signal)

    return [result.verdict, stage(result.compile), stage(result.run)]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", JAVA)
async def test_java_is_compiled_the_same(engines: tuple[Engine, Warm], name: str) -> None:
    cold, warm = engines
    assert told(await warm.result(job(name))) == told(await cold.result(job(name)))


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
class TestOneCompiler:
    async def test_what_it_makes_is_the_same_to_the_byte(self, engines: tuple[Engine, Warm]) -> None:
        cold, warm = engines
        script = job("lambdas", artifacts=("*",))
        first, second = await cold.result(script), await warm.result(script)
        assert [file.name for file in first.artifacts] == [".main-class", "Main.class", "Main.java"]
        assert second.artifacts == first.artifacts

    async def test_attack_83_what_one_job_compiled_is_not_there_for_the_next(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        assert (await warm.result(job("two_files"))).verdict is Verdict.OK
        alone = Job(language="java", files=job("two_files").files[:1], compile_limits=LIMITS, cache="none")
        assert (await warm.result(alone)).verdict is Verdict.COMPILE_ERROR

    async def test_what_it_did_before_its_job_is_not_counted(self, engines: tuple[Engine, Warm]) -> None:
        cold, warm = engines
        late, early = await cold.result(job("hello")), await warm.result(job("hello"))
        assert late.compile is not None
        assert early.compile is not None
        assert early.compile.cpu_ms < late.compile.cpu_ms

    async def test_limits_of_the_job_hold(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        limits = LimitRequest(wall_ms=20_000, cpu_ms=20_000, file_size_bytes=100)
        result = await warm.result(job("hello", compile_limits=limits))
        assert result.verdict is Verdict.COMPILE_ERROR

    @pytest.mark.parametrize("variable", ["JDK_JAVAC_OPTIONS", "JAVA_TOOL_OPTIONS", "CLASSPATH"])
    async def test_variables_that_javac_reads_want_a_fresh_one(self, engines: tuple[Engine, Warm], variable: str) -> None:
        _cold, warm = engines
        before = warm.executor.statistics().pool.prestarted
        for _ in range(3):
            await Engine.result(warm, job("hello", env={variable: "-Xlint"}))
            await warm.full()
        assert warm.executor.statistics().pool.prestarted == before


def test_further_steps_are_a_command_line_and_the_first_comes_word_by_word() -> None:
    steps = [["javac", "-d", ".", "A b.java"], ["sh", "-c", "echo $1", "sh", "it's"], ["true"]]
    assert compile_words(steps) == ("sh -c 'echo $1' sh 'it'\"'\"'s' && true", "javac", "-d", ".", "A b.java")
    assert compile_words(steps[:1])[0] == ""
