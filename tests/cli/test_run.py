"""`firebox run`: runs a program in a sandbox, in the foreground."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from firebox.cli.run.run_files import Program
from firebox.cli.run.run_flags import RunRequest
from firebox.cli.run.run_job import read_job
from firebox.runtimes.runtime import Runtime
from tests.conftest import require_tool
from tests.support.command import Command, run_command
from tests.support.server import environment, unused_uid_base

Run = Callable[..., subprocess.CompletedProcess[bytes]]
FIREBOX_RUN = ("firebox.cli.main", "run")


@pytest.fixture(scope="session")
def settings_of_tests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Flags for every command: its own data folder and user ids."""
    return environment({"FIREBOX_DATA_DIR": str(tmp_path_factory.mktemp("data")), "FIREBOX_UID_BASE": str(unused_uid_base())})


@pytest.fixture
def run(tmp_path: Path, settings_of_tests: dict[str, str]) -> Run:
    """Run `firebox run` in an empty folder."""

    def call(*arguments: str, stdin: bytes = b"", **files: str) -> subprocess.CompletedProcess[bytes]:
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text)
        return run_command([*FIREBOX_RUN, *arguments], cwd=tmp_path, stdin=stdin, env=settings_of_tests, text=False)

    return call


def test_the_language_comes_from_the_ending_and_streams_stay_apart(run: Run) -> None:
    done = run("main.sh", main_sh="echo out; echo err >&2")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 0)


def test_bytes_pass_through_unchanged(run: Run) -> None:
    data = bytes(range(256)) * 400
    assert run("main.sh", stdin=data, main_sh="cat").stdout == data


def test_arguments_after_the_file_are_the_programs(run: Run) -> None:
    done = run("main.sh", "-x", "--json", "--", "a b", main_sh='printf "%s|" "$@"')
    assert done.stdout == b"-x|--json|--|a b|"


@pytest.mark.parametrize(
    ("code", "flags", "status"),
    [
        ("exit 7", (), 7),
        ("kill -TERM $$", (), 128 + signal.SIGTERM),
        ("kill -35 $$", (), 128 + 35),
        ("sleep 60", ("--time", "200ms"), 124),
        ("while :; do :; done", ("--cpu", "200ms"), 124),
        ("yes", ("--limit", "output=1000b", "--limit", "output_mode=kill"), 137),
    ],
    ids=["exit code", "signal", "real-time signal", "wall", "cpu", "output"],
)
def test_the_exit_status_shows_how_the_program_ended(run: Run, code: str, flags: tuple[str, ...], status: int) -> None:
    done = run(*flags, "main.sh", main_sh=code)
    assert done.returncode == status
    assert (b"firebox: " in done.stderr) == (status != 7)
    assert done.stderr.count(b"wall time") == (flags[:1] == ("--time",))


def test_the_memory_limit_is_137(run: Run) -> None:
    require_tool("python3")
    done = run("-m", "64m", "main.py", main_py="x = bytearray(200 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1")
    assert done.returncode in {137, 1}  # 1: where nothing but an address space limit holds memory
    assert b"emory" in done.stderr


def test_the_compilers_status_where_it_came_to_no_program(run: Run) -> None:
    require_tool("gcc")
    done = run("main.c", main_c="int main( {")
    assert done.returncode == 1
    assert b"firebox: compile error" in done.stderr


def test_code_from_standard_input(run: Run) -> None:
    assert run("-l", "bash", "-", "a", stdin=b"echo $1; cat").stdout == b"a\n"
    done = run("-", stdin=b"echo")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--language" in done.stderr


def test_variables_files_and_commands(run: Run) -> None:
    done = run(
        "-e", "A=1=2", "-f", "data.txt", "-c", 'cat data.txt; echo "$A $1"', "main.sh", "arg", main_sh="", data_txt="data\n"
    )
    assert done.stdout == b"data\n1=2 arg\n"


def test_files_below_the_main_file_keep_their_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.sh").write_text("echo library")
    assert run("-f", str(tmp_path / "lib/a.sh"), str(tmp_path / "main.sh"), main_sh=". lib/a.sh").stdout == b"library\n"


def test_a_folder_runs_with_everything_in_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a.sh").write_text("cat data.txt")
    assert run(".", "x", main_sh=". lib/a.sh; echo $1", data_txt="data\n").stdout == b"data\nx\n"


@pytest.mark.parametrize("words", [("-l", "brainfuck", "main.x"), ("main.bf",)])
def test_a_language_that_is_not_here_is_one_command_away(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words, main_x="+", main_bf="+")
    assert done.returncode == 2
    assert b"firebox packages install --build brainfuck" in done.stderr


def test_a_program_is_started_anew(run: Run, tmp_path: Path) -> None:
    assert run("--fresh", "main.sh", main_sh="echo out").stdout == b"out\n"
    program, bash = Program("main.sh", tmp_path), Runtime(language="bash", version="5.0.0", main_name="main.sh", run=("{main}",))
    jobs = [read_job(RunRequest("main.sh", fresh=fresh), program, bash) for fresh in (False, True)]
    assert [job.fresh for job in jobs] == [False, True]


def test_artifacts_are_fetched(run: Run, tmp_path: Path) -> None:
    main_sh = "mkdir out; printf '\\x00' > out/a; echo b > out/b"
    done = run("--artifact", "out/*", "--artifact", "c", "-o", "fetched", "main.sh", main_sh=main_sh)
    assert (done.returncode, done.stderr) == (0, b"firebox: artifact left out: c: no such file\n")
    assert {file.name: file.read_bytes() for file in (tmp_path / "fetched/out").iterdir()} == {"a": b"\0", "b": b"b\n"}


def test_the_compiler_takes_arguments(run: Run) -> None:
    require_tool("gcc")
    done = run("--compile-arg=-DSTATUS=7", "--compile-arg", "-O3", "main.c", main_c="int main() { return STATUS; }")
    assert done.returncode == 7, done.stderr


def test_an_artifact_never_follows_a_symlink(run: Run, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "a").symlink_to("victim")
    done = run("--artifact", "a", "main.sh", main_sh="echo overwritten > a")
    assert done.returncode != 0
    assert (tmp_path / "victim").read_text() == "safe"


def test_json_instead_of_output(run: Run) -> None:
    done = run("--json", "main.sh", main_sh="echo hi; printf '\\xff'; exit 3")
    result = json.loads(done.stdout)
    assert (result["verdict"], result["run"]["stdout"], result["run"]["stdout_base64"]) == ("runtime_error", "hi\n�", "aGkK/w==")
    assert (done.returncode, done.stderr) == (3, b"")


def test_verbose_prints_time_and_memory(run: Run) -> None:
    done = run("--verbose", "main.sh", main_sh="true")
    assert done.stdout == b""
    assert b"ms wall" in done.stderr
    assert b"seccomp" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["nothing.sh"], "nothing.sh: No such file or directory"),
        (["main.zzz"], "no language here has files like 'main.zzz'"),
        (["-l", "klingon", "main.sh"], "klingon"),
        (["--version", "<1", "main.sh"], "versions of bash here"),
        (["--time", "soon", "main.sh"], "--time: 'soon' is not possible"),
        (["--memory", "-5", "main.sh"], "--memory"),
        (["--limit", "speed=5", "main.sh"], "no limit is called 'speed'"),
        (["--limit", "wall", "main.sh"], "not NAME=VALUE"),
        (["--env", "A", "main.sh"], "--env: 'A' is not NAME=VALUE"),
        (["--env", "A", "nothing.sh"], "nothing.sh: No such file or directory"),
        (["--artifact", "../x", "main.sh"], "artifacts[0]"),
        (["--config", "nothing.toml", "main.sh"], "nothing.toml"),
        (["--colour", "main.sh"], "--colour"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, arguments: list[str], words: str) -> None:
    done = run(*arguments, main_sh="true", main_zzz="")
    assert done.returncode == 2
    assert words in " ".join(done.stderr.decode().split())
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_closed_pipe_ends_the_run(tmp_path: Path, settings_of_tests: dict[str, str]) -> None:
    (tmp_path / "main.sh").write_text("yes")
    process = Command[bytes](
        [*FIREBOX_RUN, "--time", "60s", "--limit", "output=64m", "main.sh"],
        cwd=tmp_path, env=settings_of_tests, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()
    assert process.wait(timeout=60) != 0


def interruptible(tmp_path: Path, env: dict[str, str], code: str) -> subprocess.Popen[bytes]:
    (tmp_path / "main.sh").write_text(code)
    process = Command[bytes](
        [*FIREBOX_RUN, "--time", "60s", "--cpu", "60s", "main.sh"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_the_first_interrupt_is_the_programs(tmp_path: Path, settings_of_tests: dict[str, str]) -> None:
    code = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.01; done"
    with interruptible(tmp_path, settings_of_tests, code) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.read() == b"caught\n"
        assert process.wait(timeout=60) == 9


def test_the_second_interrupt_kills(tmp_path: Path, settings_of_tests: dict[str, str]) -> None:
    with interruptible(
        tmp_path, settings_of_tests, "trap 'echo caught' INT; echo ready; while :; do sleep 0.01; done"
    ) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == b"caught\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_output_comes_while_the_program_runs(tmp_path: Path, settings_of_tests: dict[str, str]) -> None:
    with interruptible(tmp_path, settings_of_tests, "echo ready; read -r line; echo got $line") as process:
        out, _ = process.communicate(b"words\n", timeout=60)
        assert out == b"got words\n"


def test_a_terminal_for_the_program(tmp_path: Path, settings_of_tests: dict[str, str]) -> None:
    (tmp_path / "main.sh").write_text("[ -t 0 ] && [ -t 1 ] && stty size && read -r line && echo got $line")
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    env: dict[str, Any] = {**settings_of_tests}
    env.pop("COLUMNS", None)
    env.pop("LINES", None)
    os.write(master, b"typed early, ")
    with Command[bytes](
        [*FIREBOX_RUN, "--tty", "main.sh"], cwd=tmp_path, env=env, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        assert "33 77" in read_until(master, "77")
        os.write(master, b"and late\n")
        assert "got typed early, and late" in read_until(master, "got typed early, and late")
        assert process.wait(timeout=60) == 0
    os.close(master)


def read_until(descriptor: int, words: str) -> str:
    heard = b""
    while words.encode() not in heard:
        ready, _, _ = select.select([descriptor], [], [], 60)
        assert ready, heard
        heard += os.read(descriptor, 4096)
    return heard.decode()


@pytest.mark.parametrize("first", [True, False])
def test_a_toolchain_that_is_slow_without_it_is_prepared_before_its_first_program(tmp_path: Path, run: Run, first: bool) -> None:
    runtimes, data = tmp_path / "runtimes", tmp_path / "data"
    runtimes.mkdir()
    (runtimes / "shout.toml").write_text(f"""
language = "shout"
extensions = [".shout"]
main_name = "main.shout"
run = ["{{tool}}", "-c", 'cat "$1" 2> /dev/null || echo nothing', "sh", "{{prepared}}/made"]
prepare = [["sh", "-c", 'echo made > "$1/made"', "sh", "{{prepared}}"]]
prepare_first = {str(first).lower()}
detect = {{ programs = ["sh"], command = ["echo", "1.2.3"] }}
""")
    flags = ("--config", "firebox.toml", "--data-dir", str(data))
    off = run(*flags, "main.shout", main_shout="", firebox_toml=f"runtimes_dir = '{runtimes}'\nprepare_toolchains = false")
    assert (off.stdout, off.stderr) == (b"nothing\n", b"")
    files = {"main_shout": "", "firebox_toml": f"runtimes_dir = '{runtimes}'"}
    runs = [run(*flags, "main.shout", **files) for _ in range(2)]
    assert [done.stdout for done in runs] == [b"made\n" if first else b"nothing\n"] * 2
    assert [done.stderr.startswith(b"firebox: preparing shout 1.2.3, once") for done in runs] == [first, False]
