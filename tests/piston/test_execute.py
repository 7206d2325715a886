"""What a Piston user takes for granted: names of files, encodings, input, arguments, versions."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from tests.conftest import require_tool

SHOW_FILES = "find . -type f | sort\n"
COUNT_LINES = "import sys\nprint(sys.stdin.read().encode())\n"


def execute(piston: httpx.Client, language: str, *files: dict[str, Any], **more: Any) -> Any:
    answer = piston.post("/execute", json={"language": language, "version": "*", "files": list(files), **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def output(piston: httpx.Client, language: str, *files: dict[str, Any], **more: Any) -> str:
    run = execute(piston, language, *files, **more)["run"]
    assert run["status"] is None, run
    return str(run["stdout"])


@pytest.mark.parametrize(
    ("stdin", "expected"),
    [("", b"\n"), ("a", b"a\n"), ("a\n", b"a\n"), ("a\n\n", b"a\n\n"), ("a\r", b"a\r\n"), ("\0é", "\0é\n".encode())],
)
def test_input_ends_in_a_newline(piston: httpx.Client, stdin: str, expected: bytes) -> None:
    assert output(piston, "python", {"content": COUNT_LINES}, stdin=stdin) == f"{expected!r}\n"


@pytest.mark.parametrize("more", [{}, {"stdin": None}], ids=["missing", "null"])
def test_no_input_is_an_empty_line(piston: httpx.Client, more: dict[str, Any]) -> None:
    assert output(piston, "python", {"content": COUNT_LINES}, **more) == "b'\\n'\n"


def test_a_file_without_a_name_is_named_by_its_place(piston: httpx.Client) -> None:
    named: list[dict[str, Any]] = [{"content": SHOW_FILES}, {"content": "", "name": ""}, {"content": "", "name": None}]
    assert output(piston, "bash", *named) == "./file0.code\n./file1.code\n./file2.code\n"


def test_the_first_text_file_is_the_main_file(piston: httpx.Client) -> None:
    data = {"name": "a.bin", "content": "aGk=", "encoding": "base64"}
    assert output(piston, "bash", data, {"name": "z.sh", "content": "echo $0; cat a.bin"}, {"content": "exit 1"}) == "z.sh\nhi"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b/c.txt", "./a/b/c.txt"),
        ("./c.txt", "./c.txt"),
        ("a//./b/../c.txt", "./a/c.txt"),
        ("..c", "./..c"),
        ("c..", "./c.."),
        ("a b'\"$(id).txt", "./a b'\"$(id).txt"),
        ("-n", "./-n"),
        ("é\n", "./é\n"),
    ],
)
def test_names_within_the_folder_are_kept(piston: httpx.Client, name: str, found: str) -> None:
    shown = output(piston, "bash", {"name": "main.sh", "content": SHOW_FILES}, {"name": name, "content": "x"})
    assert sorted(shown.split("\n./")) == sorted(f"./main.sh\n{found}\n".split("\n./")) or found in shown


def test_of_two_files_of_one_name_the_later_is_written(piston: httpx.Client) -> None:
    files = [{"name": "main.py", "content": "print(1)"}, {"name": "b.py", "content": "x = 2"}]
    assert output(piston, "python", *files, {"name": "./main.py", "content": "import b; print(b.x)"}) == "2\n"


@pytest.mark.parametrize(
    "text",
    [base64.encodebytes(bytes(range(256))).decode(), base64.urlsafe_b64encode(bytes(range(256))).decode().rstrip("=")],
    ids=["in lines", "url-safe without padding"],
)
def test_base64_is_read_as_clients_write_it(piston: httpx.Client, text: str) -> None:
    code = "print(open('x','rb').read() == bytes(range(256)))"
    assert output(piston, "python", {"content": code}, {"name": "x", "content": text, "encoding": "base64"}) == "True\n"


def test_data_is_not_passed_to_the_compiler(piston: httpx.Client) -> None:
    require_tool("gcc")
    data = {"name": "data.c", "content": b"no C at all".hex(), "encoding": "hex"}
    code = {"name": "main.c", "content": "int other(void); int main(void) { return other(); }"}
    other = {"name": "other.c", "content": "int other(void) { return 7; }"}
    assert execute(piston, "c", data, code, other)["run"]["code"] == 7


def test_the_language_is_in_the_environment(piston: httpx.Client) -> None:
    assert output(piston, "sh", {"content": "echo $PISTON_LANGUAGE"}) == "bash\n"


def test_arguments_arrive_as_they_were_sent(piston: httpx.Client) -> None:
    args = ["", " ", "$(id)", "`id`", "a;b", "%s", "*", "--help", "-c", "é", "a\nb", '"', "'"]
    assert output(piston, "python", {"content": "import sys; print(sys.argv[1:])"}, args=args) == f"{args}\n"


def test_the_compiler_takes_arguments_too(piston: httpx.Client) -> None:
    program = {"content": "int main(void) { return NUMBER; }"}
    body = {"language": "c", "version": "*", "files": [program]}
    ran = piston.post("/execute", json={**body, "compile_args": ["-DNUMBER=3"]}).json()
    assert ran["run"]["code"] == 3, ran
    for words, message in (
        (["-DNUMBER=3", "-fplugin=x"], "compile_args[1]: "),
        ("-O2", "compile_args must be an array of strings"),
        ([1], "compile_args[0] must be a string"),
    ):
        answer = piston.post("/execute", json={**body, "compile_args": words})
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(message)


@pytest.mark.parametrize("version", ["*", "3.x", "3", ">=3.0.0 <4", "^3.0.0", "~3", "3.x || 99.x"])
def test_versions_are_ranges(piston: httpx.Client, version: str) -> None:
    body = {"language": "python", "version": version, "files": [{"content": "print(1)"}]}
    assert piston.post("/execute", json=body).json()["version"].startswith("3.")


def test_a_version_that_the_list_names_can_be_asked_for(piston: httpx.Client) -> None:
    for entry in piston.get("/runtimes").json():
        if entry["language"] == "bash":
            body = {"language": "bash", "version": entry["version"], "files": [{"content": "echo $BASH_VERSION"}]}
            assert piston.post("/execute", json=body).json()["run"]["stdout"].startswith(entry["version"])


def test_bytes_that_are_no_text_become_replacement_characters(piston: httpx.Client) -> None:
    assert output(piston, "bash", {"content": r"printf 'a\xff\xc3\xa9\n'"}) == "a\ufffdé\n"


def test_output_of_both_streams_comes_in_order(piston: httpx.Client) -> None:
    code = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done"
    run = execute(piston, "bash", {"content": code})["run"]
    assert run["output"] == "out1\nerr1\nout2\nerr2\nout3\nerr3\n"


def test_a_trailing_slash_changes_nothing(each_prefix: httpx.Client) -> None:
    assert each_prefix.get("/runtimes/").json() == each_prefix.get("/runtimes").json()
    body = {"language": "bash", "version": "*", "files": [{"content": "echo 1"}]}
    assert each_prefix.post("/execute/", json=body).json()["run"]["stdout"] == "1\n"


def test_head_answers_like_get_without_the_body(piston: httpx.Client) -> None:
    answer = piston.head("/runtimes")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("prefix", ["", "\ufeff"], ids=["plain", "with a byte order mark"])
def test_the_body_may_begin_with_a_byte_order_mark(piston: httpx.Client, prefix: str) -> None:
    body = prefix + '{"language": "bash", "version": "*", "files": [{"content": "echo 1"}]}'
    answer = piston.post("/execute", content=body.encode(), headers={"content-type": "application/json"})
    assert answer.json()["run"]["stdout"] == "1\n"
