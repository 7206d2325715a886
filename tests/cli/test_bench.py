"""`firebox bench`: the smallest benchmark that measures everything. The measured times do not matter."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from firebox.bench.contender import Duration, summarise
from firebox.bench.judging import Judging
from firebox.bench.process_tree import Idle
from firebox.bench.report import LanguageReport, Machine, NativeReport, Peer, PeerThroughput, Report, Start, Throughput
from firebox.bench.report_tables import COLUMNS, print_tables
from tests.conftest import require_tool
from tests.support.server import environment, firebox, unused_uid_base

SMALLEST = ("bench", "--runs", "2", "--seconds", "1", "--callers", "2")


def run_bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    settings = {
        "FIREBOX_DATA_DIR": str(folder / "data"),
        "FIREBOX_UID_BASE": str(unused_uid_base()),
        "FIREBOX_PREPARE_TOOLCHAINS": "false",
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
    }
    return subprocess.run(
        firebox(*arguments), cwd=folder, env=environment(settings), capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The report of a benchmark of Python and Bash, and its output."""
    require_tool("python3")
    require_tool("bash")
    folder = tmp_path_factory.mktemp("bench")
    done = run_bench(folder, *SMALLEST, "--languages", "python,bash", "--json", "report.json", "--markdown")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert [path.name for path in folder.iterdir() if path.name != "data"] == ["report.json"]
    return report, done.stdout


@pytest.mark.slow
def test_report_has_every_way_of_running_each_language(bench: tuple[dict[str, Any], str]) -> None:
    report, _printed = bench
    assert [entry["language"] for entry in report["languages"]] == ["python", "bash"]
    for entry in report["languages"]:
        assert {"bare", "engine", "http", "firebox run"} <= set(entry["durations"])
        assert set(entry["durations"]) == set(entry["ratios"])
        assert entry["ratios"]["bare"] == 1
        for duration in entry["durations"].values():
            assert duration["runs"] >= 1
            assert 0 < duration["median_ms"] <= duration["p99_ms"]


@pytest.mark.slow
def test_compiled_language_is_measured_with_and_without_its_compiler(tmp_path: Path) -> None:
    require_tool("gcc")
    done = run_bench(tmp_path, *SMALLEST, "--languages", "c", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    [c] = report["languages"]
    assert {"bare", "bare run", "http", "http, first"} <= set(c["durations"])
    assert c["throughput"]["first_cpu_ms"] > 0
    assert report["judging"] is None


@pytest.mark.slow
def test_report_has_runs_a_second_bare_and_over_http(bench: tuple[dict[str, Any], str]) -> None:
    report, _printed = bench
    for entry in report["languages"]:
        throughput = entry["throughput"]
        assert throughput["callers"] == 2
        assert min(throughput[name] for name in ("bare_per_s", "http_alone_per_s", "http_per_s", "ratio")) > 0
        assert throughput["half_load"]["runs"] >= 2
        assert 0 < throughput["half_load"]["median_ms"] <= throughput["half_load"]["p99_ms"]


@pytest.mark.slow
def test_report_has_the_native_binary_the_stream_and_the_idle_server(bench: tuple[dict[str, Any], str]) -> None:
    report, _printed = bench
    native = report["native"]
    durations = native["durations"]
    assert native["cost_ms"] == pytest.approx(durations["engine"]["median_ms"] - durations["bare"]["median_ms"], abs=0.001)
    assert report["stream"]["runs"] == 4
    assert report["stream"]["median_ms"] > 0
    assert report["idle"]["memory_bytes"] > 1 << 20
    assert 0 <= report["idle"]["cpu_share"] < 1
    assert report["start"]["language"] == "python"
    assert report["start"]["seconds"] > 0
    if os.geteuid() == 0:
        assert 0 < report["idle"]["ready_bytes"] < report["idle"]["memory_bytes"]


@pytest.mark.slow
def test_the_report_describes_the_machine(bench: tuple[dict[str, Any], str]) -> None:
    report, _printed = bench
    assert report["machine"]["cores"] >= 1
    assert "seccomp" in report["isolation"]


@pytest.mark.slow
def test_markdown_is_tables_that_docs_can_take(bench: tuple[dict[str, Any], str]) -> None:
    _report, printed = bench
    rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert sum(set(row) <= set("|-: ") for row in rows) == 3
    assert any(row.startswith("| python") for row in rows)


def test_tables_fit_into_a_usual_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    slow = Duration(200, 12_345.678, 98_765.432)
    throughput = Throughput(
        workers=64, callers=64, bare_per_s=12_345.6, http_alone_per_s=12_345.6, http_per_s=12_345.6, ratio=123.45,
        bare_cpu_ms=1234.56, server_cpu_ms=123.45, http_cpu_ms=1234.56, half_load=slow, first_cpu_ms=12_345.6,
        peer=PeerThroughput(12_345.6, 1234.56),
    )  # fmt: skip
    durations = {str(name): slow for name in COLUMNS}
    ratios = {str(name): 123.45 for name in COLUMNS}
    language = LanguageReport("javascript", "22.14.0-rc.1", durations, ratios, throughput)
    machine = Machine("A processor with quite a long name", 128, "6.12.0-generic-of-somebody", "3.13.5")
    report = Report(
        firebox="0.1.0", machine=machine, isolation=[], languages=[language], native=NativeReport(durations, 12.34),
        stream=slow, idle=Idle(123 << 20, 0.01, 1234 << 10), start=Start("javascript", 12.34),
        judging=Judging(100, {"go-judge": 12.34}, {"go-judge": 123.45}),
        peer=Peer("v1.11.3-of-somebody", Start("javascript", 12.34), Idle(123 << 20, 0.01)),
        missing=["bubblewrap: bwrap is not installed"],
    )  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    print_tables(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    words = {word for line in lines for word in line.split()}
    assert {"javascript", "22.14.0-rc.1", "123", "12346", "98765", "1235", *" ".join(COLUMNS).split()} <= words


def test_unknown_language_is_refused(tmp_path: Path) -> None:
    done = run_bench(tmp_path, *SMALLEST, "--languages", "klingon")
    assert done.returncode == 2
    assert "klingon" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_door_is_refused(tmp_path: Path) -> None:
    done = run_bench(tmp_path, *SMALLEST, "--door", "trap")
    assert done.returncode == 2
    assert "piston" in done.stderr


def test_summary_takes_the_middle_and_the_nearest_rank() -> None:
    hundred = summarise([float(number) for number in range(1, 101)])
    assert (hundred.runs, hundred.median_ms, hundred.p99_ms) == (100, 50.5, 99.0)
    assert summarise([3.0]).p99_ms == 3.0
