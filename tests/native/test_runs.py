"""`POST /runs`: requests and responses."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import httpx
import pytest

from tests.conftest import require_tool


def run(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/runs", json={"language": "bash", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_answers_with_a_whole_result(client: httpx.Client) -> None:
    result = run(client, code="echo out; echo err >&2; exit 3")
    assert result["runtime"]["language"] == "bash"
    assert (result["verdict"], result["compile"]) == ("runtime_error", None)
    stage = result["run"]
    assert (stage["stdout"], stage["stderr"], stage["exit_code"], stage["signal"]) == ("out\n", "err\n", 3, None)
    assert sorted(stage["output"].split()) == ["err", "out"]
    assert not stage["stdout_truncated"]
    assert not stage["stderr_truncated"]
    assert stage["wall_ms"] > 0
    assert stage["memory_peak_bytes"] > 0
    assert set(result["timings"]) == {"queue_ms", "prepare_ms", "compile_ms", "run_ms"}
    assert "seccomp" in result["isolation"]
    assert len(result["id"]) == 26
    assert "stdout_base64" not in stage


def test_a_program_that_is_started_anew_runs_as_any_other(client: httpx.Client) -> None:
    assert run(client, code="echo out", fresh=True)["run"]["stdout"] == "out\n"


def test_stdin_args_and_variables_arrive(client: httpx.Client) -> None:
    result = run(client, code='cat; echo "$1|$2|$FRUIT"', stdin="in\n", args=["a b", "$(x)"], env={"FRUIT": "é=1"})
    assert result["run"]["stdout"] == "in\na b|$(x)|é=1\n"


def test_several_files_in_folders(client: httpx.Client) -> None:
    files = [
        {"name": "main.sh", "content": ". lib/greet.sh; greet; cat data.bin; ls"},
        {"name": "lib/greet.sh", "content": "greet() { echo hello; }"},
        {"name": "data.bin", "content": base64.b64encode(b"\x41\n").decode(), "encoding": "base64"},
        {"name": "..foo", "content": "x"},
    ]
    assert run(client, files=files)["run"]["stdout"] == "hello\nA\ndata.bin\nlib\nmain.sh\n"


def test_files_without_names_get_some(client: httpx.Client) -> None:
    files = [{"content": "ls"}, {"content": "second"}, {"content": "eA==", "encoding": "base64"}]
    names = run(client, files=files)["run"]["stdout"].split()
    assert len(names) == 3
    assert "main.sh" in names


def test_command_replaces_compile_and_run(client: httpx.Client) -> None:
    result = run(client, files=[{"name": "a.txt", "content": "text"}], command='cat a.txt; echo " $1"', args=["arg"])
    assert result["run"]["stdout"] == "text arg\n"


def test_compile_errors_come_from_the_compile_stage(client: httpx.Client) -> None:
    require_tool("gcc")
    result = run(client, language="c", code="int main( {")
    assert (result["verdict"], result["run"]) == ("compile_error", None)
    assert result["compile"]["verdict"] == "runtime_error"
    assert "error" in result["compile"]["stderr"]


def test_both_stages_of_a_compiled_language(client: httpx.Client) -> None:
    require_tool("gcc")
    result = run(client, language="c", code='#include <stdio.h>\nint main(void) { puts("hé"); return 0; }')
    assert (result["verdict"], result["run"]["stdout"]) == ("ok", "hé\n")
    assert result["compile"]["exit_code"] == 0


@pytest.mark.parametrize(
    ("code", "limits", "verdict"),
    [
        ("sleep 60", {"wall_ms": 200}, "wall_time"),
        ("while :; do :; done", {"cpu_ms": 200}, "cpu_time"),
        ("yes", {"output_bytes": 1000, "output_mode": "kill"}, "output"),
        ("kill -SEGV $$", {}, "signal"),
    ],
)
def test_what_became_of_the_program_is_data(client: httpx.Client, code: str, limits: dict[str, Any], verdict: str) -> None:
    result = run(client, code=code, limits={"run": limits})
    assert result["verdict"] == verdict
    assert result["reason"]


def test_output_is_cut_and_flagged(client: httpx.Client) -> None:
    result = run(client, code="head -c 5000 /dev/zero | tr '\\0' x; exit 4", limits={"run": {"output_bytes": 1000}})
    assert result["run"]["stdout"] == "x" * 1000
    assert result["run"]["stdout_truncated"]
    assert result["run"]["exit_code"] == 4


def test_undecodable_output_is_replaced_and_exact_on_request(client: httpx.Client) -> None:
    result = run(client, code="printf 'a\\xff\\xe2\\x82\\xac'; printf '\\xc3\\xa9' >&2", base64=True)
    assert result["run"]["stdout"] == "a�€"
    assert base64.b64decode(result["run"]["stdout_base64"]) == b"a\xff\xe2\x82\xac"
    assert result["run"]["stderr"] == "é"
    assert "stderr_base64" not in result["run"]


def test_output_with_escapes_and_markup_is_only_text(client: httpx.Client) -> None:
    answer = client.post("/runs", json={"language": "bash", "code": "printf '\\x1b]0;x\\x07</script>\\x00'"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["run"]["stdout"] == "\x1b]0;x\x07</script>\x00"


def test_files_come_back(client: httpx.Client) -> None:
    code = "mkdir out; printf '\\x00\\xff' > out/a.bin; echo b > b.txt; ln -s /etc/passwd out/link.bin"
    result = run(client, code=code, artifacts=["out/*.bin", "c.txt"])
    assert [(item["name"], base64.b64decode(item["content"]), item["size"]) for item in result["artifacts"]] == [
        ("out/a.bin", b"\x00\xff", 2)
    ]
    assert result["left_out"] == [
        {"name": "out/link.bin", "reason": "not a regular file"},
        {"name": "c.txt", "reason": "no such file"},
    ]


def test_terminal_instead_of_pipes(client: httpx.Client) -> None:
    result = run(client, code="[ -t 1 ] && stty size", terminal={"rows": 33, "columns": 44})
    assert result["run"]["stdout"].strip() == "33 44"


def test_aliases_and_version_ranges(client: httpx.Client) -> None:
    assert run(client, language="sh", version="*", code="echo $0")["runtime"]["language"] == "bash"
    answer = client.post("/runs", json={"language": "bash", "version": "<1", "code": ""})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "request.unknown_runtime"
    assert "versions of bash here" in answer.json()["error"]["hint"]


def test_runtimes_are_listed(client: httpx.Client) -> None:
    runtimes = client.get("/runtimes").json()
    bash = next(item for item in runtimes if item["language"] == "bash")
    assert bash["version"].count(".") == 2
    assert "sh" in bash["aliases"]
    assert ".sh" in bash["extensions"]
    assert not bash["compiled"]


def test_health_reports_the_load(client: httpx.Client) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    health = answer.json()
    assert (health["status"], health["slots"], health["queued"]) == ("ok", 4, 0)


def test_metrics_count_runs(client: httpx.Client) -> None:
    run(client, code="exit 1")
    client.post("/runs", json={"language": "no such language", "code": ""})
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for line in (
        'firebox_runs_total{language="bash",verdict="runtime_error"}',
        'firebox_stage_seconds_count{language="bash",stage="run"}',
        "firebox_queue_wait_seconds_count",
        "firebox_queue_length 0.0",
        'firebox_cache_total{level="none"}',
        "firebox_ready_sandboxes",
        "firebox_ready_wanted",
        "firebox_made_on_demand",
        "firebox_started_ahead",
        "firebox_in_flight",
        "firebox_slots 4.0",
        "firebox_launcher_restarts 0.0",
        'firebox_refused_total{code="request.unknown_runtime"}',
    ):
        assert line in answer.text


def test_network_interfaces_can_be_listed_from_java(client: httpx.Client) -> None:
    """Other network tests: tests/sandbox/test_network.py."""
    require_tool("javac")
    code = """
import java.net.*;
public class Main {
    public static void main(String[] words) throws Exception {
        for (NetworkInterface each : java.util.Collections.list(NetworkInterface.getNetworkInterfaces()))
            System.out.println(each.getName() + " " + each.isUp() + " " + each.getInterfaceAddresses());
    }
}
"""
    printed = run(client, language="java", code=code, limits={"run": {"wall_ms": 30_000, "cpu_ms": 30_000}})["run"]["stdout"]
    assert printed.startswith("lo true ")
    assert "127.0.0.1/8" in printed


def test_compiled_programs_are_cached_and_reported_as_such(client: httpx.Client) -> None:
    code = f'#include <stdio.h>\nint main(void) {{ puts("{uuid.uuid4()}"); return 0; }}\n'
    first = run(client, language="c", code=code)
    second = run(client, language="c", code=code)
    assert (first["cache"], second["cache"]) == ("none", "binary")
    assert first["run"]["stdout"] == second["run"]["stdout"]
    assert second["compile"]["cpu_ms"] == 0
    assert run(client, language="c", code=code, cache="none")["cache"] == "none"


def test_results_are_cached_on_request(client: httpx.Client) -> None:
    code = "import os; print(os.urandom(16))"
    first = run(client, language="python", code=code, cache="output")
    second = run(client, language="python", code=code, cache="output")
    assert second["cache"] == "output"
    assert first["run"]["stdout"] == second["run"]["stdout"]
    assert run(client, language="python", code=code)["run"]["stdout"] != first["run"]["stdout"]


def test_the_compiler_takes_arguments_and_each_is_another_program(client: httpx.Client) -> None:
    code = '#include <stdio.h>\nint main() { printf("%d %d\\n", NUMBER, __OPTIMIZE__); }'
    for number in (1, 2, 1):
        result = run(client, language="c", code=code, compile_args=[f"-DNUMBER={number}", "-O3", "-Werror=format"])
        assert result["run"]["stdout"] == f"{number} 1\n", result
    refused = client.post("/runs", json={"language": "c", "code": code, "compile_args": ["-O2", "-fplugin=./x.so"]})
    assert (refused.status_code, refused.json()["error"]["where"]) == (400, "compile_args[1]")
    refused = client.post("/runs", json={"language": "bash", "code": "true", "compile_args": ["-O2"]})
    assert (refused.status_code, refused.json()["error"]["where"]) == (400, "compile_args")


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("bash", "echo hi"),
        ("python", "print('hi')"),
        ("perl", "print 'hi'"),
        ("awk", 'BEGIN { print "hi" }'),
        ("c", '#include <stdio.h>\nint main() { puts("hi"); }'),
        ("node", "console.log('hi')"),
        ("java", 'class A { public static void main(String[] a) { System.out.println("hi"); } }'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_program(client: httpx.Client, language: str, code: str) -> None:
    require_tool({"c": "gcc", "java": "javac", "python": "python3"}.get(language, language))
    result = run(client, language=language, code="\ufeff" + code)
    assert result["run"]["stdout"].strip() == "hi", result
