"""`firebox packages` at a terminal: progress bars, questions, Ctrl-C."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import signal
import string
import subprocess
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.package_commands import PackageCommands, filled_folder
from tests.support.package_folder import FileServer, PackageFolder, serving
from tests.support.waiting import PATIENCE_S

LARGE_BYTES = 4_000_000


@pytest.fixture
def folder(tmp_path: Path) -> PackageFolder:
    return filled_folder(tmp_path / "repository")


@pytest.fixture
def web(folder: PackageFolder) -> Iterator[FileServer]:
    with serving(folder.path) as server:
        yield server


@pytest.fixture
def packages(tmp_path: Path, web: FileServer) -> PackageCommands:
    commands = PackageCommands(tmp_path / "data", f"{web.url}/index.yaml")
    commands.env["FIREBOX_ALLOW_UNSIGNED_PACKAGES"] = "yes"
    return commands


class Terminal:
    """The other end of a command's terminal. Records all output."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.seen = ""

    def read(self) -> bool:
        """Read some output. Return False once the command has exited."""
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE_S)
        assert ready, f"nothing more for {PATIENCE_S:.0f} s after:\n{self.seen}"
        try:
            data = os.read(self.descriptor, 4096)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, pattern: str) -> None:
        """Read until some text appears."""
        deadline = time.monotonic() + PATIENCE_S
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, f"{pattern!r} did not come within {PATIENCE_S:.0f} s:\n{self.seen}"
            assert self.read(), f"{pattern!r} never came:\n{self.seen}"

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())


@contextmanager
def at_a_terminal(packages: PackageCommands, *arguments: str) -> Generator[tuple[Terminal, subprocess.Popen[str]]]:
    """Start a command with a terminal as its standard streams."""
    ours, theirs = pty.openpty()
    process = packages.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    terminal = Terminal(ours)
    try:
        yield terminal, process
        while terminal.read():
            pass
        process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_without_a_terminal_each_step_is_a_line(packages: PackageCommands) -> None:
    done = packages("install", "greet")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^greet-2.0.0: downloading \d+ B$", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(set(lines))


def test_a_bar_shows_the_progress_of_a_download(packages: PackageCommands, folder: PackageFolder, web: FileServer) -> None:
    folder.add_archive("large", "1.0.0", padding="".join(random.choices(string.ascii_letters + string.digits, k=LARGE_BYTES)))
    with (
        web.holding("large-1.0.0.pkg.tar.gz") as rest,
        at_a_terminal(packages, "install", "large") as (terminal, process),
    ):
        terminal.wait_for(r"downloading.*\d (k|M)B of \d.* MB")
        rest.set()
        terminal.wait_for("installed large-1.0.0")
    assert process.returncode == 0


def test_ctrl_c_changes_nothing_and_the_next_attempt_completes(packages: PackageCommands, web: FileServer) -> None:
    packages.json("install", "greet@1.0.0")
    with web.holding("greet-2.0.0.pkg.tar.gz"), at_a_terminal(packages, "install", "greet@2.x") as (terminal, process):
        terminal.wait_for("downloading")
        process.send_signal(signal.SIGINT)
        terminal.wait_for("interrupted")
    assert process.returncode == 130
    assert "a bug" not in terminal.seen
    assert packages.installed() == ["greet-1.0.0"]
    assert [each["id"] for each in packages.json("install", "greet@2.x")] == ["greet-2.0.0"]


def test_ctrl_c_during_apply_reports_the_changes_made(packages: PackageCommands, web: FileServer, tmp_path: Path) -> None:
    packages.json("install", "greet@1.0.0")
    spec = tmp_path / "spec"
    spec.write_text("picture\ngreet 2.x\n")
    with web.holding("greet-2.0.0.pkg.tar.gz"), at_a_terminal(packages, "apply", str(spec), "--yes") as (terminal, process):
        terminal.wait_for("greet-2.0.0.*downloading")
        process.send_signal(signal.SIGINT)
        terminal.wait_for("interrupted")
    assert process.returncode == 130
    assert "installed picture-0.5.0" in terminal.seen
    assert packages.installed() == ["greet-1.0.0", "picture-0.5.0"]
    packages.json("apply", str(spec))
    assert packages.installed() == ["greet-2.0.0", "picture-0.5.0"]


@pytest.mark.parametrize(("answer", "status", "installed"), [("n", 1, ["greet-1.0.0"]), ("y", 0, ["picture-0.5.0"])])
def test_changes_are_confirmed_on_a_terminal(
    packages: PackageCommands, tmp_path: Path, answer: str, status: int, installed: list[str]
) -> None:
    packages.json("install", "greet@1.0.0")
    spec = tmp_path / "spec"
    spec.write_text("picture *\n")
    with at_a_terminal(packages, "apply", str(spec)) as (terminal, process):
        terminal.wait_for(r"Continue\?")
        assert re.search(r"install  picture-0.5.0.*\s+remove   greet-1.0.0", terminal.seen)
        terminal.type(f"{answer}\n")
    assert process.returncode == status
    assert packages.installed() == installed


def test_index_content_cannot_send_terminal_escapes(packages: PackageCommands, folder: PackageFolder) -> None:
    folder.add_archive("loud", "1.0.0", announced={"language": "\x1b[2Jloud"})
    folder.add_archive("plain", "1.0.0", announced={"author": "[red]Mallory[/red]"})
    with at_a_terminal(packages, "info", "plain") as (terminal, _process):
        terminal.wait_for(r"\[red\]Mallory\[/red\]")
        terminal.wait_for("installed")
    assert "loud" in terminal.seen
    assert "\x1b[2J" not in terminal.seen
