"""Bad input gets a 4xx that names the problem and its place: never a 500, never a traceback, and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.server import RunningServer

OK = {"language": "bash", "code": "true"}


def raw(**changes: Any) -> str:
    return json.dumps({**OK, **changes})


def one_file(**file: Any) -> str:
    return json.dumps({"language": "bash", "files": [file]})


def named(*names: str) -> str:
    return json.dumps({"language": "bash", "files": [{"name": name, "content": ""} for name in names]})


CASES: list[tuple[str, str | bytes, str, str]] = [
    # name, body, where, words of the message
    ("empty body", "", "line 1 column 1", "not JSON"),
    ("truncated", '{"language": "bash", "code": "tr', "line 1 column", "not JSON"),
    ("two documents", raw() + raw(), "line 1 column", "Extra data"),
    ("list", "[]", "body", "expected `object`"),
    ("null", "null", "body", "expected `object`"),
    ("number", "1", "body", "expected `object`"),
    ("not UTF-8", b'{"language": "\xff"}', "byte 14", "not UTF-8"),
    ("UTF-16", raw().encode("utf-16"), "byte 0", "not UTF-8"),
    ("a million levels", "[" * 1_000_000, "", "more than 32768 values"),
    ("thirty thousand levels", "[" * 30_000, "", "nested too deeply"),
    ("thirty thousand objects", '{"a":' * 30_000, "", "nested too deeply"),
    ("levels in a key", '{"language":"bash","code":"","x":' + "[" * 500 + "]" * 500 + "}", "x", "unknown key"),
    ("duplicate key", '{"language": "bash", "code": "", "language": "c"}', "language", "duplicate key"),
    ("deep duplicate", '{"files":[{"content":""},{"name":"a","content":"","name":"b"}]}', "files[1].name", "duplicate key"),
    ("unknown key", raw(stdinn="x"), "stdinn", "unknown key 'stdinn'"),
    ("unknown key of a file", one_file(contents=""), "files[0].contents", "unknown key"),
    ("unknown limit", raw(limits={"run": {"wall": 1}}), "limits.run.wall", "unknown key"),
    ("a million unknown letters", raw(**{"x" * 1_000_000: 1}), "x" * 64 + "...", "unknown key"),
    ("no language", json.dumps({"code": ""}), "language", "is required"),
    ("language number", raw(language=1), "language", "expected `str`"),
    ("language null", raw(language=None), "language", "expected `str`"),
    ("language empty", raw(language=""), "language", "required"),
    ("language unknown", raw(language="klingon"), "language", "klingon"),
    ("language with shell words", raw(language="$(id)%s\n"), "language", "no runtime"),
    ("language huge", raw(language="x" * 100_000), "language", "longer than"),
    ("language surrogate", '{"language": "\\ud800", "code": ""}', "language", "lone surrogate (U+D800)"),
    ("version number", raw(version=3), "version", "expected `str`"),
    ("version nonsense", raw(version="three"), "language", "no runtime"),
    ("version with shell words", raw(version="`id`\n"), "language", "no runtime"),
    ("version huge", raw(version="1" * 10_000), "version", "longer than"),
    ("no files", json.dumps({"language": "bash"}), "files", "no source file"),
    ("only data", one_file(content="", encoding="base64"), "files", "no source file"),
    ("files object", raw(files={}), "files", "expected `array`"),
    ("files of text", raw(files=["x"]), "files[0]", "expected `object`"),
    ("code and files", raw(files=[{"content": ""}]), "code", "mutually exclusive"),
    ("content number", one_file(content=1), "files[0].content", "expected `str`"),
    ("content surrogate", '{"language": "bash", "code": "\\udfff"}', "code", "lone surrogate"),
    ("unknown encoding", one_file(content="", encoding="hex"), "files[0].encoding", "hex"),
    ("bad base64", one_file(content="*", encoding="base64"), "files[0].content", "base64"),
    ("cut base64", one_file(content="abc", encoding="base64"), "files[0].content", "base64"),
    ("base64 é", one_file(content="é", encoding="base64"), "files[0].content", "base64"),
    ("name ../x", named("../x"), "files[0].name", "'..'"),
    ("name a/../../x", named("ok", "a/../../x"), "files[1].name", "'..'"),
    ("name /etc/x", named("/etc/x"), "files[0].name", "absolute"),
    ("name C:\\x", named("C:\\x"), "files[0].name", "backslash"),
    ("name empty", named(""), "files[0].name", "empty"),
    ("name .", named("."), "files[0].name", "'.'"),
    ("name ..", named(".."), "files[0].name", "'..'"),
    ("name a//b", named("a//b"), "files[0].name", "component ''"),
    ("name a/", named("a/"), "files[0].name", "slash"),
    ("name NUL", named("a\0b"), "files[0].name", "NUL"),
    ("name surrogate", '{"language":"bash","files":[{"name":"\\ud800","content":""}]}', "files[0].name", "surrogate"),
    ("name 256 bytes", named("é" * 128), "files[0].name", "255 bytes"),
    ("name 5000 bytes", named("/".join(["x" * 200] * 25)), "files[0].name", "4096"),
    ("name 33 deep", named("/".join("x" * 33)), "files[0].name", "deep"),
    ("name twice", named("a", "b", "a"), "files[2].name", "files[0]"),
    ("file and folder", named("a", "a/b"), "files[1].name", "file in files[0]"),
    ("folder and file", named("a/b/c", "a/b"), "files[0].name", "file in files[1]"),
    ("too many files", named(*map(str, range(5001))), "files", "at most 5000"),
    ("stdin number", raw(stdin=1), "stdin", "expected `str`"),
    ("stdin surrogate", '{"language":"bash","code":"","stdin":"\\udc00"}', "stdin", "surrogate"),
    ("args text", raw(args="x"), "args", "expected `array`"),
    ("args of numbers", raw(args=["a", 1]), "args[1]", "expected `str`"),
    ("args NUL", raw(args=["a", "b\0"]), "args[1]", "NUL"),
    ("args surrogate", '{"language":"bash","code":"","args":["\\ud800"]}', "args[0]", "surrogate"),
    ("one huge arg", raw(args=["x" * 200_000]), "args[0]", "131071"),
    ("2 MB of args", raw(args=["x" * 100_000] * 20), "args", "1048576"),
    ("10,001 args", raw(args=["x"] * 10_001), "args", "at most 10000"),
    ("10,001 variables", raw(env={f"A{number}": "" for number in range(10_001)}), "env", "at most 10000"),
    ("200,000 args", raw(args=["x"] * 200_000), "", "more than 32768 values"),
    ("env list", raw(env=[]), "env", "expected `object`"),
    ("env number", raw(env={"A": 1}), "env[...]", "expected `str`"),
    ("env name =", raw(env={"A=B": "x"}), "env", "valid variable name"),
    ("env name empty", raw(env={"": "x"}), "env", "valid variable name"),
    ("env name NUL", raw(env={"A\0": "x"}), "env", "valid variable name"),
    ("env NUL", raw(env={"A": "x\0"}), "env.A", "NUL"),
    ("env surrogate", '{"language":"bash","code":"","env":{"A":"\\ud800"}}', "env.A", "surrogate"),
    ("env name surrogate", '{"language":"bash","code":"","env":{"\\ud800":"x"}}', "env", "surrogate"),
    ("command NUL", raw(command="a\0b"), "command", "NUL"),
    ("command huge", raw(command="x" * 200_000), "command", "131071"),
    ("limit negative", raw(limits={"run": {"wall_ms": -1}}), "limits.run.wall_ms", "-1"),
    ("limit 0", raw(limits={"compile": {"wall_ms": 0}}), "limits.compile.wall_ms", "at least 1"),
    ("limit text", raw(limits={"run": {"wall_ms": "5"}}), "limits.run.wall_ms", "expected `int"),
    ("limit NaN", '{"language":"bash","code":"","limits":{"run":{"wall_ms":NaN}}}', "line 1", "NaN"),
    ("limit Infinity", '{"language":"bash","code":"","limits":{"run":{"wall_ms":-Infinity}}}', "line 1", "-Infinity"),
    ("limit 1e308", '{"language":"bash","code":"","limits":{"run":{"wall_ms":1e308}}}', "limits.run.wall_ms", ""),
    ("limit 1e999", '{"language":"bash","code":"","limits":{"run":{"wall_ms":1e999}}}', "limits.run.wall_ms", ""),
    ("limit 1.5", raw(limits={"run": {"wall_ms": 1.5}}), "limits.run.wall_ms", ""),
    ("limit true", raw(limits={"run": {"wall_ms": True}}), "limits.run.wall_ms", ""),
    ("limit 10 ** 400", raw(limits={"run": {"memory_bytes": 10**400}}), "limits.run.memory_bytes", ""),
    ("limit 5000 digits", '{"language":"bash","code":"","limits":{"run":{"wall_ms":' + "9" * 5000 + "}}}", "", "4300 digits"),
    ("limit too high", raw(limits={"run": {"wall_ms": 10**9}}), "limits.run.wall_ms", "at most 60000"),
    ("no cap", raw(limits={"run": {"memory_bytes": 0}}), "limits.run.memory_bytes", "at most"),
    ("unknown mode", raw(limits={"run": {"output_mode": "stop"}}), "limits.run.output_mode", "stop"),
    ("artifact ..", raw(artifacts=["../*"]), "artifacts[0]", "'..'"),
    ("artifact /", raw(artifacts=["/etc/*"]), "artifacts[0]", "absolute"),
    ("artifacts many", raw(artifacts=["*"] * 101), "artifacts", "at most 100"),
    ("memory small", raw(limits={"run": {"memory_bytes": 1 << 20}}), "limits.run.memory_bytes", "at least 4194304"),
    ("inodes small", raw(limits={"compile": {"writable_inodes": 2}}), "limits.compile.writable_inodes", "at least 16"),
    ("artifacts long", raw(artifacts=["a/" * 30 + "*" * 200] * 70), "artifacts", "at most 16384"),
    ("fresh text", raw(fresh="yes"), "fresh", "expected `bool`"),
    ("fresh null", raw(fresh=None), "fresh", "expected `bool`"),
    ("terminal text", raw(terminal="yes"), "terminal", "expected"),
    ("terminal 0 rows", raw(terminal={"rows": 0}), "terminal.rows", "1 to 1000"),
    ("terminal huge", raw(terminal={"columns": 10**6}), "terminal.columns", "1 to 1000"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "where", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_is_rejected_with_an_explanation(client: httpx.Client, body: str | bytes, where: str, words: str) -> None:
    answer = client.post("/runs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert error["code"].startswith("request.")
    assert error.get("where", "").startswith(where)
    assert words in error["message"]
    assert len(answer.text) < 2000
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def test_is_accepted_although_it_looks_odd(client: httpx.Client) -> None:
    odd: dict[str, Any] = {
        "byte order mark": b"\xef\xbb\xbf" + raw().encode(),
        "a whole float": raw(limits={"run": {"wall_ms": 3000.0}}),
        "10,000 args": raw(args=["x"] * 10_000, code="[ $# = 10000 ]"),
        "NUL in stdin": raw(stdin="\0", code="[ $(wc -c) = 1 ]"),
        "CRLF": raw(code="true\r\n".replace("\r", "")),
        "a name with a newline": named("main.sh", "a\nb"),
        "a name with a dash": named("-x.sh"),
    }
    for name, body in odd.items():
        answer = client.post("/runs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200, (name, answer.text)
        assert answer.json()["verdict"] == "ok", (name, answer.text)


def test_unknown_key_has_the_nearest_as_hint(client: httpx.Client) -> None:
    answer = client.post("/runs", json={**OK, "limits": {"run": {"wal_ms": 1}}})
    assert answer.json()["error"]["hint"] == "did you mean 'wall_ms'?"


@pytest.mark.parametrize(("language", "recipe"), [("brainfuck", "brainfuck"), ("bf", "brainfuck"), ("Befunge93", "befunge93")])
def test_a_language_that_is_not_here_has_its_installation_as_hint(client: httpx.Client, language: str, recipe: str) -> None:
    answer = client.post("/runs", json={**OK, "language": language})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request.unknown_runtime")
    assert f"firebox packages install --build {recipe}" in answer.json()["error"]["hint"]


@pytest.mark.parametrize(
    "path", ["/runs/x", "/runs/%00", "/runs/..%2f..%2fetc", "/runs/" + "x" * 5000, "/nothing", "/runs/x/y/z"]
)
def test_unknown_paths_and_runs_are_404(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert len(answer.text) < 300
    assert answer.json()["error"]["code"] in {"request.not_found", "http.not_found"}


def test_unknown_paths_are_answered_in_the_error_format_of_all_doors(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/nothing", timeout=60, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert answer.json() == {"error": {"code": "http.not_found", "message": "Not Found"}, "message": "Not Found"}


def test_wrong_method_is_405(client: httpx.Client) -> None:
    answer = client.put("/runs")
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "http.method_not_allowed"


def test_wrong_parameter_is_400(client: httpx.Client) -> None:
    assert client.get("/runs/x?base64=perhaps").status_code == 400
    answer = client.get("/runs/x/events", headers={"Last-Event-ID": "x"})
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "Last-Event-ID")
