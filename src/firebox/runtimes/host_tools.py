"""Runs programs of the host to find out their real paths and versions."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firebox.runtimes.definition import Detect, Tool, fill
from firebox.runtimes.host_folders import MissingShimTargetError, UnusableToolError, is_standard, prefix_of
from firebox.runtimes.search_path import SearchPath, is_program
from firebox.runtimes.tool_version import to_semver

if TYPE_CHECKING:
    from subprocess import Popen

ANSWER_TIMEOUT_S = 10.0
"""Timeout for a tool; a JVM on a busy machine takes a second."""
_MOST_ANSWER_BYTES = 1 << 20
"""Limit on a tool's output; a program of the same name may print endlessly."""

_PASSED_ON = ("CARGO_HOME", "HOME", "JAVA_HOME", "PYENV_ROOT", "PYENV_VERSION", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN")
"""Variables that version managers depend on."""
_NOT_FOUND = (126, 127)
"""Exit codes of a shell when a program is not found or not executable."""


def real_program(tool: Tool, candidate: Path, path: str) -> Path:
    """Resolve symlinks and shims. A program that every sandbox shows keeps its usual name, which may determine what it does.

    path: PATH for shims. Raises: UnusableToolError, OSError.
    """
    real = candidate.resolve()
    if tool.locate and _may_be_shim(candidate, real):
        lines = run_tool([str(candidate), *tool.locate], path=path).splitlines()
        located = Path(tool.executable.replace("{located}", lines[0].strip() if lines else "")).resolve()
        if not is_program(located):
            raise UnusableToolError(f"it resolves to {located}, which is not a program")
        if located != real:
            return located
    return candidate if is_standard(real) and is_standard(candidate.parent.resolve()) else real


def _may_be_shim(candidate: Path, real: Path) -> bool:
    """Return whether a program may be a shim: a script, or a symlink to a file of another name.

    So may any program outside of the standard folders: it may be a symlink into a virtual environment.
    """
    if not is_standard(real) or not (candidate.name in real.name or real.name in candidate.name):
        return True
    with real.open("rb") as file:
        return file.read(2) == b"#!"


def ask_version(detect: Detect, executable: Path, path: str) -> str:
    """Return a program's version as SemVer, from the definition's file or its output. Raises: UnusableToolError, OSError."""
    values = tool_values(executable)
    file = Path(fill(detect.file, values)) if detect.file else None
    if file is not None and file.is_file():
        with contextlib.suppress(UnusableToolError):  # the file may be something else
            return read_version(detect, file.read_text(encoding="utf-8", errors="replace"))
    command = [fill(word, values) for word in detect.command] or [str(executable), *detect.version]
    return read_version(detect, run_tool(command, path=path, stdin=detect.stdin))


def read_version(detect: Detect, text: str) -> str:
    """Return the version in a program's output, as SemVer. Raises: UnusableToolError."""
    match = re.search(detect.pattern, text, re.MULTILINE)
    version = to_semver(match[1] if match.re.groups else match[0]) if match else None
    if version is None:
        raise UnusableToolError(f"no version in {text[:80]!r}")
    return version


def find_tool(tool: Tool, search: SearchPath, real: Callable[[Tool, Path], Path], beside: Path) -> Path:
    """Find another program of a runtime, first in the folder `beside`. real: as `real_program`. Raises: UnusableToolError."""
    problem = "not on PATH"
    for candidate in search.find(tool.programs, first_in=beside):
        try:
            return real(tool, candidate)
        except (UnusableToolError, OSError) as error:
            problem = str(error)
    raise UnusableToolError(f"it needs {tool.programs[0]}: {problem}")


def tool_values(executable: Path) -> dict[str, str]:
    """Return the placeholders that depend on a program's path."""
    real = executable.resolve()
    return {"tool": str(executable), "prefix": str(prefix_of(real)), "folder": str(real.parent)}


def environment_of_tools(path: str) -> dict[str, str]:
    """Return the environment variables for programs of the host."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | {"PATH": path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def run_tool(command: Sequence[str], *, path: str, stdin: str = "") -> str:
    """Run a program of the host and return its output, stdout first. Its process group is killed at the end.

    Raises: UnusableToolError when it fails, times out or prints too much; OSError when it cannot be started.
    """
    import subprocess  # rarely needed

    environment = environment_of_tools(path)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", start_new_session=True
    ) as process:
        try:
            stdout, stderr = _read_output(process, stdin.encode(), time.monotonic() + ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise UnusableToolError(f"no answer within {ANSWER_TIMEOUT_S:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    text = (stdout + b"\n" + stderr).decode(errors="replace").strip()
    if process.returncode != 0:
        words = f"exit code {process.returncode}" + (f": {text.splitlines()[0][:120]!r}" if text else "")
        raise MissingShimTargetError(words) if process.returncode in _NOT_FOUND else UnusableToolError(words)
    return text


def _read_output(process: Popen[bytes], stdin: bytes, deadline_s: float) -> tuple[bytes, bytes]:
    """Read both streams to their end. stdin: must fit into a pipe. Raises: UnusableToolError for too much, TimeoutError."""
    import selectors
    import subprocess

    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(stdin)
    heard = {stream.fileno(): bytearray() for stream in (process.stdout, process.stderr) if stream is not None}
    with selectors.DefaultSelector() as selector:
        for descriptor in heard:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline_s - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, _MOST_ANSWER_BYTES)
                heard[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
            if sum(map(len, heard.values())) > _MOST_ANSWER_BYTES:
                raise UnusableToolError(f"its output exceeds {_MOST_ANSWER_BYTES} bytes")
    try:
        process.wait(max(0.0, deadline_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    stdout, stderr = map(bytes, heard.values())
    return stdout, stderr
