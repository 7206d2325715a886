"""An interpreter that was started before its job came: no program can tell, and nothing of one job is seen in the next."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Finished, Job, Result, Terminal, Verdict
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.prestart import HOOKS
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.sandbox.pool.templates import ARE_POSSIBLE
from firebox.settings.settings import load_settings
from tests.conftest import require_tool
from tests.engine import ahead_programs
from tests.engine.conftest import Engine, Restored, Warm, programs_that_wait
from tests.support.waiting import until

ENDINGS = {"python": "py", "node": "js", "perl": "pl", "bash": "sh", "ruby": "rb", "php": "php", "lua": "lua"}
PROGRAMS = {
    "python": ahead_programs.PYTHON,
    "node": ahead_programs.NODE,
    "perl": ahead_programs.PERL,
    "bash": ahead_programs.BASH,
    "ruby": ahead_programs.RUBY,
    "php": ahead_programs.PHP,
    "lua": ahead_programs.LUA,
}
WITHOUT_HOOK = ("php", "lua")
"""These wait where they open the main file."""
WITH_TEMPLATE = tuple(each for each in PROGRAMS if ARE_POSSIBLE and each in HOOKS and HOOKS[each].has_template)
WITHOUT_ARGUMENTS = ("bash", *WITHOUT_HOOK)
CASES = [pytest.param(language, name, id=f"{language}-{name}") for language, programs in PROGRAMS.items() for name in programs]
SIBLINGS = {
    "other_module.py": b"VALUE = 42\n",
    "other.py": b"def f():\n    raise ValueError('inside')\nf()\n",
    "other_module.js": b"module.exports = 42\n",
    "other_module.mjs": b"await new Promise(done => setTimeout(done, 1))\nexport default import.meta.url\n",
    "other_error.mjs": b"await 1\nthrow new Error('inside')\n",
    "other_module.rb": b"VALUE = 42\n",
    "other.rb": b"def f = raise('inside')\nf\n",
}
LIMITS = LimitRequest(wall_ms=10_000, cpu_ms=10_000, output_bytes=300_000)
SMALL_STACK = Runtime(
    language="small-stack",
    version="1.0.0",
    main_name="main.small",
    extensions=(".small",),
    run=("/bin/sh", "-c", 'STARTED_WITH=$(ulimit -s) exec /bin/sh "$0"', "{main}"),
    run_limits=LimitRequest(stack_bytes=8 << 20),
    ahead="file",
)
"""It may not be started with the stack that others get."""


def runtime(language: str) -> Runtime:
    program = {"python": "/usr/bin/python3"}.get(language) or require_tool(language)
    ending = ENDINGS[language]
    env = {"PYTHONDONTWRITEBYTECODE": "1"} if language == "python" else {}
    run = (program, "{main}")
    return Runtime(
        language=language,
        version="1.0.0",
        main_name=f"main.{ending}",
        extensions=(f".{ending}",),
        run=run,
        env=env,
        ahead="file" if language == "lua" else language,
    )


def job(language: str, code: str, **fields: Any) -> Job:
    files = [File(f"main.{ENDINGS[language]}", code.encode())]
    files += [File(name, content) for name, content in SIBLINGS.items() if name.endswith(ENDINGS[language])]
    wanted: dict[str, Any] = {"run_limits": LIMITS, **fields}
    return Job(language=language, files=tuple(files), **wanted)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Engine, Warm]]:
    registry = Registry([*(runtime(language) for language in PROGRAMS), SMALL_STACK])
    folder = str(tmp_path_factory.mktemp("data"))
    cold = load_settings({"ready_sandboxes": 1, "start_ahead": False, "data_dir": folder}, environ={})
    warm = load_settings({"ready_sandboxes": 2, "templates": False, "data_dir": folder}, environ={})
    async with LocalExecutor(cold, registry) as first, LocalExecutor(warm, registry) as second:
        yield Engine(first), Warm(second)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def restored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Restored]:
    settings = load_settings({"ready_sandboxes": 2, "data_dir": str(tmp_path_factory.mktemp("data"))}, environ={})
    async with LocalExecutor(settings, Registry([runtime(language) for language in WITH_TEMPLATE])) as executor:
        yield Restored(executor)


def compared(language: str, name: str) -> Job:
    """Make the job of one of the programs that are run in several ways."""
    if name == "endless_output":
        return job(language, PROGRAMS[language][name], run_limits=LimitRequest(wall_ms=600, output_bytes=1000))
    arguments = () if language in WITHOUT_ARGUMENTS else ("a b", "ü", "")
    return job(language, PROGRAMS[language][name], stdin="one\ntwo ü\n".encode(), args=arguments)


def told(result: Result) -> dict[str, object]:
    """Everything that a client hears, but for times, names that are another each time, and addresses in messages."""
    assert result.run is not None
    stage = result.run
    return {
        "verdict": result.verdict,
        "stdout": stage.stdout.decode(errors="replace"),
        "stderr": re.sub("0x[0-9a-f]{8,}", "0x", stage.stderr.decode(errors="replace")),
        "exit_code": stage.exit_code,
        "signal": stage.signal,
        "cut": (stage.stdout_truncated, stage.stderr_truncated),
    }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("language", "name"), CASES)
async def test_program_cannot_tell(engines: tuple[Engine, Warm], language: str, name: str) -> None:
    cold, warm = engines
    wanted = compared(language, name)
    assert told(await warm.result(wanted)) == told(await cold.result(wanted))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("language", "name"), [case for case in CASES if case.values[0] in WITH_TEMPLATE])
async def test_program_cannot_tell_that_it_came_out_of_a_template(
    engines: tuple[Engine, Warm], restored: Restored, language: str, name: str
) -> None:
    wanted = compared(language, name)
    assert told(await restored.result(wanted)) == told(await engines[0].result(wanted))


NODE_RANDOM = """
const crypto = require("crypto"), vm = require("vm"), { Worker } = require("worker_threads");
const drawn = [Math.random(), vm.runInNewContext("Math.random()"), vm.runInNewContext("Math.random()")];
drawn.push(crypto.randomBytes(8).toString("hex"), crypto.randomUUID(), globalThis.crypto.randomUUID(), crypto.randomInt(2 ** 47));
drawn.push(globalThis.crypto.getRandomValues(new BigUint64Array(1))[0]);
drawn.push(crypto.generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" }).d);
drawn.push(crypto.generatePrimeSync(64, { bigint: true }));
const inWorker = "require('worker_threads').parentPort.postMessage([Math.random(), require('crypto').randomUUID()])";
const worker = () => new Promise((done) => new Worker(inWorker, { eval: true }).on("message", done));
Promise.all([worker(), worker()]).then((all) => {
  drawn.push(...all.flat());
  crypto.randomBytes(8, (error, bytes) => console.log([...drawn, bytes.toString("hex")].join("\\n")));
});
"""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.skipif(not ARE_POSSIBLE, reason="templates are for x86-64")
async def test_random_numbers_of_what_came_out_of_a_template_are_others_each_time(restored: Restored) -> None:
    drawn: list[str] = []
    for _ in range(20):
        stage = (await restored.result(job("node", NODE_RANDOM))).run
        assert stage is not None
        drawn += stage.stdout.decode().split()
    assert len(drawn) == len(set(drawn)) == 20 * 15


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An executor that gives a job to an interpreter that has only just been started."""
    settings = load_settings({"ready_sandboxes": 1, "data_dir": str(tmp_path_factory.mktemp("data"))}, environ={})
    async with LocalExecutor(settings, Registry([runtime(language) for language in PROGRAMS])) as executor:
        setattr(executor._pool, "_take", executor.launchers.make)  # noqa: B010 - a method is replaced
        yield Engine(executor)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("language", "name"),
    [case for case in CASES if case.values[1] in ("argv", "empty", "input") or str(case.values[1]).startswith("first_line")],
)
async def test_program_cannot_tell_that_it_came_before_its_interpreter_waited(
    engines: tuple[Engine, Warm], hasty: Engine, language: str, name: str
) -> None:
    wanted = compared(language, name)
    assert told(await hasty.result(wanted)) == told(await engines[0].result(wanted))


@pytest.mark.asyncio(loop_scope="module")
class TestOneInterpreter:
    async def test_is_used_once(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        code = "import builtins; print(hasattr(builtins, 'mark'), open('/proc/sys/kernel/hostname').read()); builtins.mark = 1"
        for _ in range(3):
            stage = (await warm.result(job("python", code))).run
            assert stage is not None
            assert stage.stdout.startswith(b"False")

    @pytest.mark.parametrize(
        ("language", "code"),
        [
            ("python", "print(hash('a'), __import__('random').random(), id(object))"),
            ("python", "print([line for line in open('/proc/self/maps') if 'libc.so' in line or 'stack' in line])"),
            ("node", "console.log(Math.random(), require('crypto').randomBytes(8))"),
            ("perl", "print rand, join '', keys %{{map { $_ => 1 } 1 .. 20}}"),
            ("bash", "echo $RANDOM $SRANDOM"),
            ("ruby", "p 'a'.hash, rand, Random.new_seed"),
            ("ruby", "puts File.readlines('/proc/self/maps').grep(/libc.so|stack/)"),
        ],
        ids=["python-seeds", "python-addresses", "node", "perl", "bash", "ruby-seeds", "ruby-addresses"],
    )
    async def test_seeds_and_addresses_are_others_each_time(self, engines: tuple[Engine, Warm], language: str, code: str) -> None:
        _cold, warm = engines
        assert len({str(told(await warm.result(job(language, code)))) for _ in range(4)}) == 4

    @pytest.mark.parametrize("language", PROGRAMS)
    async def test_attack_83_nothing_of_one_run_is_seen_in_the_next(self, engines: tuple[Engine, Warm], language: str) -> None:
        cold, warm = engines
        looks = job(language, ahead_programs.LOOKING[language])
        seen_first = told(await cold.result(looks))
        leaves = ahead_programs.LEAVING[language]
        both = told(await cold.result(job(language, leaves + ahead_programs.LOOKING[language])))
        assert both["verdict"] is Verdict.OK, both
        assert both["stdout"] != seen_first["stdout"], "it looks for something else than what is left"
        for _ in range(3):
            left = await warm.result(job(language, leaves))
            assert left.verdict is Verdict.OK
            assert told(await warm.result(looks)) == seen_first

    @pytest.mark.parametrize("stack_kib", [8192, 32768])
    async def test_starts_with_the_stack_that_its_language_or_the_job_wants(
        self, engines: tuple[Engine, Warm], stack_kib: int
    ) -> None:
        _cold, warm = engines
        limits = LimitRequest() if stack_kib == 8192 else LimitRequest(stack_bytes=stack_kib << 10)
        wanted = Job(language="small-stack", files=(File("main.small", b"echo $STARTED_WITH $(ulimit -s)"),), run_limits=limits)
        assert told(await warm.result(wanted))["stdout"] == f"{stack_kib} {stack_kib}\n"

    async def test_its_limits_are_the_jobs(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        limits = LimitRequest(open_files=77, file_size_bytes=5000, processes=33, wall_ms=5000, cpu_ms=4000)
        code = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_FSIZE), r.getrlimit(r.RLIMIT_CPU))"
        stage = (await warm.result(job("python", code, run_limits=limits))).run
        assert stage is not None
        assert stage.stdout == b"(77, 77) (5000, 5000) (6, 6)\n"

    async def test_memory_limit_holds(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        limits = LimitRequest(memory_bytes=64 << 20)
        result = await warm.result(job("python", "x = bytearray(200 << 20); x[::4096] = x[::4096]", run_limits=limits))
        assert result.verdict is Verdict.MEMORY

    async def test_its_start_is_not_counted(self, engines: tuple[Engine, Warm]) -> None:
        cold, warm = engines
        code = "import time; time.sleep(0.01)"
        late, early = await cold.result(job("node", "1")), await warm.result(job("node", "1"))
        assert late.run is not None
        assert early.run is not None
        assert early.run.cpu_ms < late.run.cpu_ms
        assert (await warm.result(job("python", code))).verdict is Verdict.OK

    async def test_processor_time_limit_counts_from_the_job_on(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        result = await warm.result(job("python", "while True: pass", run_limits=LimitRequest(cpu_ms=300, wall_ms=9000)))
        assert result.verdict is Verdict.CPU_TIME

    @pytest.mark.parametrize(
        "fields",
        [
            {"terminal": Terminal()},
            {"command": "echo x"},
            {"fresh": True},
            {"env": {"PYTHONPATH": "/box"}},
            {"env": {"PYTHONHASHSEED": "0"}},
        ],
        ids=["terminal", "command", "fresh", "path", "seed"],
    )
    async def test_what_needs_a_fresh_start_gets_one(self, engines: tuple[Engine, Warm], fields: dict[str, Any]) -> None:
        _cold, warm = engines
        before = warm.executor.statistics().pool.prestarted
        for _ in range(4):
            async with warm.executor.submit(job("python", "print('x')", **fields)) as run:
                last = [event async for event in run.events()][-1]
            assert isinstance(last, Finished)
            assert last.result.verdict is Verdict.OK
            await warm.full()
        assert warm.executor.statistics().pool.prestarted == before

    async def test_variables_of_a_job_are_its_own(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        code = "import os; print(os.environ.get('MINE'))"
        stage = (await warm.result(job("python", code, env={"MINE": "yes"}))).run
        other = (await warm.result(job("python", code))).run
        assert stage is not None
        assert other is not None
        assert (stage.stdout, other.stdout) == (b"yes\n", b"None\n")

    @pytest.mark.parametrize(
        ("language", "module", "code"),
        [
            ("python", "json.tool", "import sys, os; print('json.tool' in sys.modules, 'FIREBOX_PRELOAD' in os.environ)"),
            (
                "node",
                "fs/promises",
                "console.log(process.moduleLoadList.includes('NativeModule fs/promises'), 'FIREBOX_PRELOAD' in process.env)",
            ),
            (
                "perl",
                "List::Util",
                "print map { $_ ? 'true ' : 'false ' } exists $INC{'List/Util.pm'}, exists $ENV{FIREBOX_PRELOAD}",
            ),
            ("ruby", "json", "puts $LOADED_FEATURES.any?(/json.rb$/), ENV.key?('FIREBOX_PRELOAD')"),
        ],
    )
    async def test_modules_are_loaded_while_it_waits(self, tmp_path: Path, language: str, module: str, code: str) -> None:
        preload = {language: ["no_such_module", module]}
        settings = load_settings({"ready_sandboxes": 2, "data_dir": str(tmp_path), "preload": preload}, environ={})
        async with LocalExecutor(settings, Registry([runtime(language)])) as executor:
            engine = Warm(executor)
            first = (await Engine.result(engine, job(language, code))).run
            later = (await engine.result(job(language, code))).run
        assert first is not None
        assert later is not None
        assert later.stdout.decode().lower().split() == ["true", "false"]
        assert first.stdout.decode().lower().split()[1] == "false"

    async def test_one_that_died_waiting_is_replaced(self, engines: tuple[Engine, Warm]) -> None:
        cold, _warm = engines
        broken = Runtime(language="broken", version="1.0.0", main_name="main.sh", run=("/bin/sh", "{main}"), ahead="bash")
        registry = Registry([broken])
        settings = load_settings({"ready_sandboxes": 2, "start_ahead": True}, environ={})
        del cold
        async with LocalExecutor(settings, registry) as executor:
            engine = Warm(executor)
            for _ in range(4):  # sh knows no BASH_ENV: it reads the empty file and ends
                result = await Engine.result(engine, Job(language="broken", files=(File("main.sh", b"echo here"),)))
                assert result.run is not None
                assert result.run.stdout == b"here\n"
                await engine.full()
                await until(lambda: not programs_that_wait(executor))

    async def test_nobody_hears_what_one_said_that_did_not_wait(self, tmp_path: Path) -> None:
        run = ("/bin/sh", "-c", "test -s $0 || { echo nothing there; exit; }; . ./$0", "{main}")
        hasty = Runtime(language="hasty", version="1.0.0", main_name="main.sh", run=run, ahead="file")
        settings = load_settings({"ready_sandboxes": 2, "data_dir": str(tmp_path)}, environ={})
        async with LocalExecutor(settings, Registry([hasty])) as executor:
            engine = Warm(executor)
            for _ in range(4):
                result = await Engine.result(engine, Job(language="hasty", files=(File("main.sh", b"echo here"),)))
                assert result.run is not None
                assert (result.run.stdout, result.run.stderr) == (b"here\n", b"")
                await engine.full()
                await until(lambda: not programs_that_wait(executor))

    @pytest.mark.slow
    async def test_one_that_waits_longer_than_a_lease_lasts_is_started_anew(self, tmp_path: Path) -> None:
        settings = load_settings({"ready_sandboxes": 1, "data_dir": str(tmp_path)}, environ={})
        wanted = job("lua", "print('here')")
        lease_s = int(Path("/proc/sys/fs/lease-break-time").read_text())
        async with LocalExecutor(settings, Registry([runtime("lua")])) as executor:
            warm = Warm(executor)
            await warm.result(wanted)
            await warm.full()
            before = programs_that_wait(executor)
            async with asyncio.timeout(lease_s + 30):
                while before & programs_that_wait(executor):
                    await asyncio.sleep(0.1)
            result = await warm.result(wanted)
        assert result.run is not None
        assert result.run.stdout == b"here\n"

    async def test_what_has_no_hook_may_have_variables(self, engines: tuple[Engine, Warm]) -> None:
        _cold, warm = engines
        result = await warm.result(job("lua", "print(os.getenv('MINE'))", env={"MINE": "yes"}))
        assert result.run is not None
        assert result.run.stdout == b"yes\n"

    @pytest.mark.parametrize(
        "fields",
        [{"args": ("x",)}, {"env": {"HOME": "/box"}}, {"files": (File("main.lua", b"print(1)"), File("more.lua", b""))}],
        ids=["arguments", "home", "files"],
    )
    async def test_what_has_no_hook_waits_only_for_jobs_of_one_file(
        self, engines: tuple[Engine, Warm], fields: dict[str, Any]
    ) -> None:
        _cold, warm = engines
        before = warm.executor.statistics().pool.prestarted
        for _ in range(3):
            wanted: dict[str, Any] = {"files": job("lua", "print(1)").files, **fields}
            result = await Engine.result(warm, Job(language="lua", **wanted))
            assert result.run is not None
            assert result.run.stdout == b"1\n"
            await warm.full()
        assert warm.executor.statistics().pool.prestarted == before
