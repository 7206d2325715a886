"""The contract of the command: errors, answers, leftovers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stdio.conftest import NO_SANDBOX, ask, command, command_environment, names_below, request

SHOW = "import sys; print(sys.stdin.read()); print('oops', file=sys.stderr)"
LISTING = "import os\nfor place, _, names in os.walk('.'):\n    for name in names: print(os.path.join(place, name)[2:])"
WAYS = pytest.mark.parametrize("way", [(), NO_SANDBOX], ids=["sandbox", "no-sandbox"])


def python(code: str, **more: Any) -> dict[str, Any]:
    return request("python", ("main.py", code), **more)


@WAYS
def test_answer_has_three_keys_and_no_spaces(way: tuple[str, ...]) -> None:
    reply = ask(python(SHOW, stdin="in\u00e4"), *way)
    assert reply.stdout == '{"stdout":"in\u00e4\\n","stderr":"oops\\n","error":""}'.encode()
    assert reply.status == 0


@WAYS
def test_compile_and_run(way: tuple[str, ...]) -> None:
    code = '#include <stdio.h>\nint main(void) { return puts("made") < 0; }'
    assert ask(request("c", ("main.c", code)), *way).answer == {"stdout": "made\n", "stderr": "", "error": ""}
    assert ask(request("c", ("main.c", "no")), *way).answer["error"] == "Exit code: 1"


@WAYS
def test_command_replaces_compile_and_run(way: tuple[str, ...]) -> None:
    asked = request("c", ("main.c", "not C at all"), ("folder/data", "1"), command="cat main.c folder/data; exit 7")
    assert ask(asked, *way).answer == {"stdout": "not C at all1", "stderr": "", "error": "Exit code: 7"}


@WAYS
def test_death_by_a_signal_is_reported(way: tuple[str, ...]) -> None:
    assert ask(python("import os; os.kill(os.getpid(), 11)"), *way).answer["error"] == "died on SIGSEGV"


@WAYS
def test_time_limit_is_reported(way: tuple[str, ...]) -> None:
    endless = python("print('on', flush=True)\nimport time\nwhile True: time.sleep(1)")
    if way:  # the container limits the time there; only the executor's own tests can set a limit
        pytest.skip("tests/stdio/test_unsandboxed.py")
    answer = ask(endless, env={"FIREBOX_RUN_WALL_MS": "400ms"}).answer
    assert answer["stdout"] == "on\n"
    assert answer["error"].startswith("wall time limit: ")


def test_truncated_output_is_reported() -> None:
    answer = ask(python("print('x' * 5000)"), env={"FIREBOX_RUN_OUTPUT_BYTES": "1000"}).answer
    assert answer["stdout"] == "x" * 1000
    assert "stdout" in answer["error"]


def test_programs_do_not_see_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert ask(python(f"import os; print(os.path.exists({str(secret)!r}), os.getuid())")).answer["stdout"] == "False 1000\n"


def test_null_means_absent_and_unknown_keys_are_ignored() -> None:
    assert ask(python("print(1)", stdin=None, command=None, runInstructions={"x": 1})).answer["stdout"] == "1\n"


def test_answers_while_stdin_stays_open() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", *command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=command_environment(), bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        data = json.dumps(python("print('{}')")).encode()
        for part in (data[:20], data[20:], b"\n"):
            process.stdin.write(part)
        assert json.loads(process.stdout.read())["stdout"] == "{}\n"
        assert process.wait(timeout=60) == 0


NAMES_REFUSED = [
    "../x", "/etc/x", "a/../../x", "C:\\x", "", "a//b", "a/", ".", "./a", "a\0b", "x" * 256, "/".join("x" * 40), "\udc00",
]  # fmt: skip

BAD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"language=python",
    "half of one": b'{"language":"python","files":[',
    "a list": b"[]",
    "a number": b"1",
    "two documents": b"{}{}",
    "not UTF-8": b'{"language":"\xff"}',
    "NaN": b'{"language":NaN}',
    "a key twice": b'{"language":"python","language":"c","files":[{"name":"a","content":"b"}]}',
    "very deep": b'{"a":' * 100_000,
    "no language": json.dumps({"files": [{"name": "a", "content": "b"}]}).encode(),
    "a language that is a number": json.dumps({"language": 3, "files": [{"name": "a", "content": "b"}]}).encode(),
    "an unknown language": json.dumps(request("klingon", ("a", "b"))).encode(),
    "an empty language": json.dumps(request("", ("a", "b"))).encode(),
    "no files": json.dumps({"language": "python"}).encode(),
    "empty files": json.dumps(request("python")).encode(),
    "files that are null": json.dumps({"language": "python", "files": None}).encode(),
    "a file without content": json.dumps({"language": "python", "files": [{"name": "a"}]}).encode(),
    "an empty content": json.dumps(request("python", ("a", ""))).encode(),
    "a name twice": json.dumps(request("python", ("a", "1"), ("a", "2"))).encode(),
    "a file that is a folder too": json.dumps(request("python", ("a", "1"), ("a/b", "2"))).encode(),
    "half a character": b'{"language":"python","files":[{"name":"a","content":"\\ud800"}]}',
    "a NUL in the command": json.dumps(request("python", ("a", "b"), command="a\0b")).encode(),
    "stdin that is a list": json.dumps(request("python", ("a", "b"), stdin=[])).encode(),
    "more than is allowed": json.dumps(request("python", ("a", "x" * 70_000))).encode(),
    **{f"the name {name[:12]!r}": json.dumps(request("python", ("a", "b"), (name, "c"))).encode() for name in NAMES_REFUSED},
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_leaves_stdout_empty_and_exits_with_1(what: str) -> None:
    reply = ask(BAD[what], env={"FIREBOX_MAX_BODY_BYTES": "65536" if what != "very deep" else "2MiB"})
    assert (reply.status, reply.stdout) == (1, b"")
    assert reply.stderr.startswith("firebox: ")
    assert "Traceback" not in reply.stderr


@WAYS
def test_unusual_file_names_are_accepted(way: tuple[str, ...]) -> None:
    names = ["..foo", "a b", "-rf", "@x", "$(touch owned)", "`id`", "a;b", "a\nb", "%s", "folder/..x/y", "\u00e4\U0001f600"]
    code = "import os\nprint(sorted(os.path.join(p, n)[2:] for p, _, ns in os.walk('.') for n in ns))"
    answer = ask(request("python", ("main.py", code), *((name, "x") for name in names)), *way).answer
    assert answer == {"stdout": f"{sorted([*names, 'main.py'])}\n", "stderr": "", "error": ""}


@WAYS
@pytest.mark.parametrize("name", ["-x.sh", "$(touch owned).sh", "a b.sh", ";id.sh", "@x.sh"])
def test_a_main_file_with_a_strange_name_is_only_a_name(way: tuple[str, ...], name: str) -> None:
    assert ask(request("bash", (name, "ls -A")), *way).answer == {"stdout": f"{name}\n", "stderr": "", "error": ""}


@pytest.mark.parametrize("language", ["$(id)", "python; id", "python\n", "../python", "--help", "%s%s", "py*"])
def test_shell_characters_in_a_language_are_not_interpreted(language: str) -> None:
    reply = ask(request(language, ("main.py", "print(1)")))
    if language.strip() == "python":
        assert reply.answer["stdout"] == "1\n"  # only surrounding spaces
    else:
        assert (reply.status, reply.stdout) == (1, b"")


def test_stdin_is_no_command() -> None:
    assert ask(python("print(input())", stdin="$(id) `id`; id")).answer["stdout"] == "$(id) `id`; id\n"


@WAYS
def test_path_keeps_the_files_and_exposes_existing_ones(way: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "data.txt").write_text("there already")
    (tmp_path / "main.py").write_text("old")
    answer = ask(request("python", ("main.py", LISTING), ("new/two.py", "2")), "--path", str(tmp_path), *way).answer
    assert sorted(answer["stdout"].split()) == ["before/data.txt", "main.py", "new/two.py"]
    assert names_below(tmp_path) == ["before/data.txt", "main.py", "new/two.py"]
    assert (tmp_path / "main.py").read_text() == LISTING


def test_path_is_created_if_missing(tmp_path: Path) -> None:
    assert ask(python("print(1)"), f"--path={tmp_path}/a/b").answer["stdout"] == "1\n"
    assert names_below(tmp_path) == ["a/b/main.py"]


def test_what_a_program_writes_in_the_sandbox_stays_there(tmp_path: Path) -> None:
    assert ask(python("open('made', 'w').write('x')"), "--path", str(tmp_path)).answer["error"] == ""
    assert names_below(tmp_path) == ["main.py"]
    assert ask(python("open('made', 'w').write('x')"), "--path", str(tmp_path), *NO_SANDBOX).answer["error"] == ""
    assert names_below(tmp_path) == ["made", "main.py"]


@WAYS
@pytest.mark.parametrize("trap", ["link to a file", "link to a folder", "pipe", "folder"])
def test_path_with_a_symlink_trap_is_rejected(way: tuple[str, ...], trap: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "x").write_text("untouched")
    name = "in/x" if trap == "link to a folder" else "x"
    match trap:
        case "link to a file":
            (folder / "x").symlink_to(outside / "x")
        case "link to a folder":
            (folder / "in").symlink_to(outside)
        case "pipe":
            os.mkfifo(folder / "x")
        case _:
            (folder / "x").mkdir()
    reply = ask(request("python", ("main.py", "print(1)"), (name, "written")), "--path", str(folder), *way)
    assert (reply.status, reply.stdout) == (1, b"")
    assert name in reply.stderr
    assert (outside / "x").read_text() == "untouched"


def test_symlinks_and_pipes_are_not_copied_into_the_sandbox(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    assert ask(python(LISTING), "--path", str(folder)).answer["stdout"] == "main.py\n"


def test_files_that_cannot_be_written_exit_with_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    reply = ask(python("print(1)"), "--path", str(tmp_path / "file"))
    assert (reply.status, reply.stdout) == (1, b"")


@pytest.mark.parametrize("flags", [("--no-sandbox",), ("--no-sandbox", "--path", "/nonexistent-folder")])
def test_no_sandbox_alone_is_rejected_with_a_message(flags: tuple[str, ...]) -> None:
    reply = ask(python("print(1)"), *flags)
    assert (reply.status, reply.stdout) == (1, b"")
    assert "--inside-container" in reply.stderr


def test_temporary_folder_is_removed(tmp_path: Path) -> None:
    for way in ((), NO_SANDBOX):
        assert ask(python("print(1)"), *way, env={"TMPDIR": str(tmp_path)}).answer["stdout"] == "1\n"
    assert names_below(tmp_path) == []
