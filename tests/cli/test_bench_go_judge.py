"""`firebox bench` with go-judge, replaced by a server with the same API: the comparison, and cleaning up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from firebox.bench import go_judge
from firebox.bench.contender import BenchmarkFailed
from firebox.bench.go_judge import GoJudge, find_go_judge, kept_files
from firebox.bench.http_client import Exchange, run_with_callers
from firebox.bench.judging import SOURCE, TESTS, Judge, JudgedTest, compare_judges, judge_bare, judge_by_go_judge, write_tests
from firebox.bench.process_tree import ProcessTree
from firebox.bench.programs import Program
from firebox.runtimes.runtime import Runtime
from tests.cli.test_bench import SMALLEST, run_bench
from tests.conftest import missing, require_tool
from tests.support.go_judge import VERSION, install_go_judge

SH = Program(Runtime(language="sh", version="1.0.0", main_name="main.sh", run=("/bin/sh", "main.sh")), "echo hello")


def c_plus_plus() -> Program:
    tool = require_tool("g++")
    return Program(
        Runtime(
            language="c++",
            version="1.0.0",
            main_name="main.cpp",
            compile=((tool, "-o", "a.out", "main.cpp"),),
            run=("./a.out",),
        ),
        SOURCE,
    )


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return install_go_judge(tmp_path, tmp_path / "pids")


def assert_ended(pids: Path, servers: int) -> None:
    numbers = pids.read_text().split()
    assert len(numbers) == servers
    assert not [number for number in numbers if Path("/proc", number).exists()]


@pytest.mark.slow
def test_report_has_go_judge_beside_firebox(tmp_path: Path, stand_in: Path) -> None:
    require_tool("gcc")
    require_tool("g++")
    tool, problem = find_go_judge(str(tmp_path))
    if tool is None:
        missing(f"go-judge is left alone here: {problem}")
    done = run_bench(tmp_path, *SMALLEST, "--languages", "bash,c,c++", "--json", "report.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert not [line for line in report["missing"] if line.startswith("go-judge")]
    for entry in (*report["languages"], report["native"]):
        assert entry["durations"]["go-judge"]["median_ms"] > 0
    for entry in report["languages"]:
        assert entry["throughput"]["peer"]["per_s"] > 0
        assert entry["throughput"]["peer"]["cpu_ms"] >= 0
    assert report["peer"]["version"] == VERSION
    assert report["peer"]["start"]["language"] == "bash"
    assert report["peer"]["idle"]["memory_bytes"] > 0
    assert report["judging"]["tests"] == TESTS
    assert set(report["judging"]["tests_cpu_s"]) == {"bare", "http", "go-judge"}
    assert set(report["judging"]["compile_cpu_s"]) == {"bare", "http", "go-judge"}
    assert_ended(tmp_path / "pids", servers=2)


@pytest.mark.slow
def test_bench_goes_on_when_go_judge_does_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "go-judge"
    broken.write_text("#!/bin/sh\necho no luck today >&2\nexit 3\n")
    broken.chmod(0o755)
    tool, problem = find_go_judge(str(tmp_path))
    if tool is None:
        missing(f"go-judge is left alone here: {problem}")
    done = run_bench(tmp_path, *SMALLEST, "--languages", "bash", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "go-judge: it exited with status 3: no luck today" in report["missing"]
    assert report["peer"] is None
    assert report["languages"][0]["throughput"]["peer"] is None


def test_absent_go_judge_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    tool, problem = find_go_judge(str(tmp_path))
    assert tool is None
    assert "go install github.com/criyle/go-judge" in problem


def test_go_judge_is_left_alone_where_it_would_move_every_process(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "cgroup"
    groups.mkdir()
    monkeypatch.setattr(go_judge, "CONTROL_GROUPS", groups)
    monkeypatch.setattr(go_judge, "SYSTEMD", tmp_path / "systemd")
    assert find_go_judge(str(tmp_path)) == (str(stand_in), "")
    (groups / "cgroup.controllers").write_text("memory pids")
    assert find_go_judge(str(tmp_path))[0] is None
    (tmp_path / "systemd").mkdir()
    assert find_go_judge(str(tmp_path)) == (str(stand_in), "")


def test_its_control_groups_and_process_are_gone_in_the_end(
    tmp_path: Path, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = tmp_path / "cgroup"
    name = f"firebox-bench-{os.getpid()}"
    for left in (groups / "memory" / name / "api", groups / name / "containers", groups / "memory" / "somebody"):
        left.mkdir(parents=True)
    monkeypatch.setattr(go_judge, "CONTROL_GROUPS", groups)
    with GoJudge(str(stand_in), tmp_path / "files", ()):
        pass
    assert [path.name for path in groups.rglob("*")] == ["memory", "somebody"]
    assert_ended(tmp_path / "pids", servers=1)


def test_programs_run_with_their_input_and_wrong_output_is_noticed(tmp_path: Path, stand_in: Path) -> None:
    with GoJudge(str(stand_in), tmp_path / "files", ()) as server:
        assert server.version == VERSION
        exchange = server.exchange(SH, server.prepare(SH, []))
        assert run_with_callers(server.url, [exchange] * 5, 2) > 0
        reader = Program(SH.runtime, "cat", expected=b"two words")
        run_with_callers(server.url, [server.exchange(reader, server.prepare(reader, []), "two words\n")], 1)
        with pytest.raises(BenchmarkFailed, match="other words"):
            run_with_callers(server.url, [server.exchange(reader, server.prepare(reader, []), "other words\n")], 1)


def test_each_exchange_is_checked_against_its_own_answer(tmp_path: Path, stand_in: Path) -> None:
    with GoJudge(str(stand_in), tmp_path / "files", ()) as server:
        reader = Program(SH.runtime, "cat")
        files = server.prepare(reader, [])
        right = [
            server.exchange(Program(SH.runtime, "cat", word.encode()), files, f"{word}\n") for word in ("one", "two", "three")
        ]
        assert run_with_callers(server.url, right, 2) > 0
        crossed = [Exchange(right[0].request, right[1].mark), *right]
        with pytest.raises(BenchmarkFailed, match="one"):
            run_with_callers(server.url, crossed, 2)


def test_judges_agree_on_every_test_and_forget_what_they_compiled(tmp_path: Path, stand_in: Path) -> None:
    program = c_plus_plus()
    bare_folder = tmp_path / "bare"
    bare_folder.mkdir()
    with GoJudge(str(stand_in), tmp_path / "files", ()) as server:
        judges: dict[str, Judge] = {
            "bare": partial(judge_bare, bare_folder),
            "go-judge": partial(judge_by_go_judge, server, ["a.out"], 2),
        }
        judging = compare_judges(judges, program, seconds=0)
        assert set(judging.tests_cpu_s) == set(judging.compile_cpu_s) == {"bare", "go-judge"}
        assert httpx.get(f"{server.url}/file", trust_env=False).json() == {}
        wrong = [JudgedTest("1\n7\n", b"8")]
        for judge in judges.values():
            with pytest.raises(BenchmarkFailed, match="7"):
                judge(program, wrong)


def test_tests_are_the_same_each_time_and_all_different() -> None:
    tests = write_tests()
    assert tests == write_tests()
    assert len({test.stdin for test in tests}) == len(tests) == TESTS


def test_a_failed_compile_reports_the_compilers_messages() -> None:
    answer = b'[{"status":"Nonzero Exit Status","exitStatus":1,"time":1,"files":{"stderr":"main.c: no such thing","stdout":""}}]'
    with pytest.raises(BenchmarkFailed, match=r"Nonzero Exit Status: main\.c: no such thing"):
        kept_files(answer)
    answer = b'[{"status":"File Error","error":"copyOut: a.out does not exist","time":1}]'
    with pytest.raises(BenchmarkFailed, match=r"File Error: copyOut: a\.out does not exist"):
        kept_files(answer)


def test_a_compile_response_lists_stored_files() -> None:
    answer = b'[{"status":"Accepted","exitStatus":0,"time":3,"memory":4,"procPeak":2,"fileIds":{"a.out":"5LWIZ"}}]'
    assert kept_files(answer) == {"a.out": "5LWIZ"}


def test_processes_that_a_thread_started_belong_to_the_tree() -> None:
    program = """
import subprocess, threading
def start():
    with subprocess.Popen(["sleep", "60"]) as child:
        print(child.pid, flush=True)
threading.Thread(target=start).start()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        pids = set(ProcessTree(process.pid).pids())
        os.kill(child, 9)
    assert pids == {process.pid, child}
