"""The same requests in the sandbox and in containers of a real image: the same responses."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.glot.conftest import Glot, files

RUN = "/languages/python/latest"
OTHER_PART = {"name": "other/part.py", "content": "x = 3"}


@pytest.fixture(params=["native", "container"])
def each(request: pytest.FixtureRequest) -> Glot:
    """A server of either kind."""
    return cast("Glot", request.getfixturevalue("glot" if request.param == "native" else "contained"))


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (files("print('Hello')"), {"stdout": "Hello\n", "stderr": "", "error": ""}),
        ({**files("print(input())"), "stdin": "from stdin"}, {"stdout": "from stdin\n", "stderr": "", "error": ""}),
        ({**files("print(1)"), "stdin": None, "command": None}, {"stdout": "1\n", "stderr": "", "error": ""}),
        ({**files("print(1)"), "unknown": {"key": 1}}, {"stdout": "1\n", "stderr": "", "error": ""}),
        (files("import sys; print('out'); sys.exit('words')"), {"stdout": "out\n", "stderr": "words\n", "error": "Exit code: 1"}),
        (files("import sys; sys.exit(77)"), {"stdout": "", "stderr": "", "error": "Exit code: 77"}),
        ({**files("print('é ☃ \U0001f600')"), "stdin": "é"}, {"stdout": "é ☃ \U0001f600\n", "stderr": "", "error": ""}),
        ({**files("print(1)"), "command": "echo $((6 * 7)); ls"}, {"stdout": "42\nmain.py\n", "stderr": "", "error": ""}),
        (
            {"files": [{"name": "main.py", "content": "import other.part; print(other.part.x)"}, OTHER_PART]},
            {"stdout": "3\n", "stderr": "", "error": ""},
        ),
    ],
    ids=["hello", "stdin", "nulls", "unknown keys", "exit with words", "exit code", "unicode", "command", "folder"],
)
def test_a_program_runs(each: Glot, body: dict[str, Any], answer: dict[str, str]) -> None:
    found = each.user.post(RUN, json=body)
    assert (found.status_code, found.json()) == (200, answer)
    assert list(found.json()) == ["stdout", "stderr", "error"]


@pytest.mark.parametrize(
    ("code", "message", "key"),
    [
        ("import time; time.sleep(1000)", "Code exceeded the maximum allowed running time", "run.timeout"),
        (
            "import time\nwhile True: print('x', flush=True); time.sleep(0.1)",
            "Code exceeded the maximum allowed running time",
            "run.timeout",
        ),
        ("while True: pass", "Code exceeded the maximum allowed running time", "run.timeout"),
        ("print('x' * 6000)", "Output exceeded the maximum allowed size", "run.output"),
        ("import sys; sys.stderr.write('x' * 6000)", "Output exceeded the maximum allowed size", "run.output"),
        ("print('x' * 4000); import sys; sys.stderr.write('x' * 4000)", "Output exceeded the maximum allowed size", "run.output"),
    ],
    ids=["sleeps", "drips", "spins", "too much stdout", "too much stderr", "too much together"],
)
def test_a_program_that_exceeds_a_limit_is_stopped(each: Glot, code: str, message: str, key: str) -> None:
    found = each.user.post(RUN, json=files(code))
    assert (found.status_code, found.json()) == (400, {"error": key, "message": message})


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_is_stopped_at_once_in_our_own_sandbox(glot: Glot, stream: str) -> None:
    found = glot.user.post(RUN, json=files(f"import sys\nwhile True: sys.{stream}.write('x' * 1000)"))
    assert (found.status_code, found.json()["error"]) == (400, "run.output")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not UTF-8"),
        (b"[" * 30_000, "nested too deeply"),
        (b"[]", "the body is not a JSON object"),
        (b'"text"', "the body is not a JSON object"),
        (b"{}", "Missing files"),
        (b'{"files": null}', "Missing files"),
        (b'{"files": []}', "Missing files"),
        (b'{"files": {}}', "Missing files"),
        (b'{"files": [{}]}', "One or more files are incomplete"),
        (b'{"files": [7]}', "One or more files are incomplete"),
        (b'{"files": [{"name": "a"}]}', "One or more files are incomplete"),
        (b'{"files": [{"content": "a"}]}', "One or more files are incomplete"),
        (b'{"files": [{"name": "", "content": "a"}]}', "One or more files are incomplete"),
        (b'{"files": [{"name": "a", "content": ""}]}', "One or more files are incomplete"),
        (b'{"files": [{"name": "a", "content": "a"}, {"name": 1, "content": "a"}]}', "One or more files are incomplete"),
        (b'{"files": [{"name": "a", "content": "a"}], "stdin": 7}', "stdin: must be a string"),
        (b'{"files": [{"name": "a", "content": "a"}], "command": []}', "command: must be a string"),
        (b'{"files": [{"name": "a", "content": "\\ud800"}]}', "a lone surrogate"),
        (b'{"files": [{"name": "../a", "content": "a"}]}', ".."),
    ],
)
def test_bad_bodies_are_explained(glot: Glot, body: bytes, message: str) -> None:
    found = glot.user.post(RUN, content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400
    assert found.json()["error"] == "request.parse"
    assert message in found.json()["message"]


def test_a_body_that_is_no_json_by_name_is_refused(glot: Glot) -> None:
    found = glot.user.post(RUN, content=b'{"files": []}', headers={"Content-Type": "text/plain"})
    assert (found.status_code, found.json()["error"]) == (415, "request.parse")


@pytest.mark.parametrize("name", ["java", "cpp"])
def test_a_compiler_that_fails_is_an_answer(glot: Glot, name: str) -> None:
    if name not in [entry["name"] for entry in glot.anonymous.get("/languages").json()]:
        pytest.skip(f"{name} is not installed")
    answer = glot.user.post(f"/languages/{name}/latest", json=files("this is no program", f"Main.{name}")).json()
    assert answer["error"] == "Exit code: 1"
    assert answer["stderr"]
