"""Runs without Firebox, as cheap as possible: posix_spawn and wait; bare, or under bubblewrap."""

from __future__ import annotations

import os
import resource
import select
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firebox.bench.contender import BenchmarkFailed, Contender
from firebox.bench.programs import Program
from firebox.sandbox.plan.mounts import USRMERGE_LINKS, WORK

BARE = "bare"
BARE_RUN = "bare run"
BUBBLEWRAP = "bubblewrap"
COMMAND = "firebox run"
_LAST_WORDS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Processes:
    """Runs command lines in a folder, and checks the output of the last one. stdin: path of a file."""

    name: str
    steps: Sequence[Sequence[str]]
    environment: dict[str, str]
    folder: Path
    expected: bytes
    stdin: str = os.devnull

    def contender(self, every: int = 1) -> Contender:
        return Contender(self.name, self.run, every)

    def run(self) -> float:
        """Run all steps; see `Contender.run`."""
        os.chdir(self.folder)  # posix_spawn has no argument for it
        output = b""
        started = time.perf_counter()
        for step in self.steps:
            output = _run_one(step, self.environment, self.stdin)
        elapsed_ms = (time.perf_counter() - started) * 1000
        if output.strip() != self.expected:
            raise BenchmarkFailed(f"{self.name}: {self.steps[-1][0]} wrote {output!r} instead of {self.expected!r}")
        return elapsed_ms


def bare(program: Program, folder: Path) -> Processes:
    """Run a program without a sandbox. folder: contains its source."""
    return Processes(BARE, program.steps(), program.environment(str(folder)), folder, program.expected)


def bare_run(program: Program, folder: Path) -> Processes:
    """Run the compiler's output in the folder, without compiling."""
    return Processes(BARE_RUN, program.steps()[-1:], program.environment(str(folder)), folder, program.expected)


def bubblewrap(program: Program, folder: Path) -> Contender | None:
    """Run a program under bubblewrap with similar isolation; None if it is not installed.

    Every step has a sandbox of its own, as in Firebox. Missing: limits, a seccomp filter, inode limits.
    """
    tool = shutil.which("bwrap")
    if tool is None:
        return None
    words = [tool, "--unshare-all", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--die-with-parent"]
    words += ["--new-session", "--cap-drop", "ALL", "--clearenv"]
    environment = {**program.environment(WORK), "TMPDIR": "/tmp"}  # noqa: S108 - the sandbox's own
    for name, value in environment.items():
        words += ["--setenv", name, value]
    for tree in ("/usr", "/etc", *program.runtime.mounts):
        words += ["--ro-bind", tree, tree]
    for link in USRMERGE_LINKS:
        if Path(link).is_symlink():
            words += ["--symlink", str(Path(link).readlink()), link]
        elif Path(link).is_dir():
            words += ["--ro-bind", link, link]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108 - as above
    words += ["--bind", str(folder), WORK, "--chdir", WORK, "--"]
    steps = [[*words, *step] for step in program.steps()]
    return Processes(BUBBLEWRAP, steps, {}, folder, program.expected).contender()


def firebox_run(program: Program, folder: Path, command: Sequence[str], *, every: int) -> Contender:
    """Run a program with `firebox run`, a new process each time. command: starts `firebox`."""
    source = str(folder / program.runtime.main_name)
    words = [*command, "run", "--language", program.language, "--time", "60s", source]
    return Processes(COMMAND, [words], dict(os.environ), folder, program.expected).contender(every)


def run_side_by_side(contender: Processes, *, runs: int, workers: int) -> tuple[float, float]:
    """Run a program `runs` times, with `workers` concurrent workers, each in its own folder.

    Return the wall time of all, and the CPU time of the programs themselves, in seconds.
    """
    folders = [_worker_folder(contender.folder, number) for number in range(workers)]
    poll = select.poll()
    busy: dict[int, tuple[int, Path, int]] = {}

    def begin(folder: Path, step: int) -> None:
        pid = _spawn_silent(contender.steps[step], contender.environment, folder)
        pidfd = os.pidfd_open(pid)
        busy[pidfd] = pid, folder, step
        poll.register(pidfd, select.POLLIN)

    cpu_before_s = cpu_of_children_s()
    started = time.perf_counter()
    begun = ended = 0
    while ended < runs:
        while begun < runs and folders:
            begin(folders.pop(), 0)
            begun += 1
        for pidfd, _event in poll.poll():
            poll.unregister(pidfd)
            os.close(pidfd)
            pid, folder, step = busy.pop(pidfd)
            _pid, status = os.waitpid(pid, 0)
            if status:
                command = contender.steps[step][0]
                raise BenchmarkFailed(f"{contender.name}: {command} exited with {os.waitstatus_to_exitcode(status)}")
            if step + 1 < len(contender.steps):
                begin(folder, step + 1)
            else:
                folders.append(folder)
                ended += 1
    return time.perf_counter() - started, cpu_of_children_s() - cpu_before_s


def _worker_folder(folder: Path, number: int) -> Path:
    """Create a folder beside a program's own, with the same files."""
    worker = folder.with_name(f"{folder.name}-worker-{number}")
    if not worker.exists():
        shutil.copytree(folder, worker)
    return worker


def _spawn_silent(argv: Sequence[str], environment: dict[str, str], folder: Path) -> int:
    os.chdir(folder)
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    return os.posix_spawnp(argv[0], list(argv), environment, file_actions=actions)


def _run_one(argv: Sequence[str], environment: dict[str, str], stdin: str) -> bytes:
    readable, writable = os.pipe()
    errors = os.memfd_create("errors", os.MFD_CLOEXEC)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, writable, 1),
        (os.POSIX_SPAWN_DUP2, errors, 2),
    ]
    try:
        pid = os.posix_spawnp(argv[0], list(argv), environment, file_actions=actions)
        os.close(writable)
        pieces: list[bytes] = []
        while piece := os.read(readable, 65_536):
            pieces.append(piece)
        _pid, status = os.waitpid(pid, 0)
        if status:
            words = os.pread(errors, _LAST_WORDS_BYTES, 0).decode(errors="replace").strip()
            raise BenchmarkFailed(f"{' '.join(argv)} exited with {os.waitstatus_to_exitcode(status)}: {words}")
        return b"".join(pieces)
    finally:
        os.close(readable)
        os.close(errors)


def cpu_of_children_s() -> float:
    """Return the CPU time of all reaped children of this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
