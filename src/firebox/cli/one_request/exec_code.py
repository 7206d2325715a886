"""Entry point of `exec-{language}` images: runs the code in its argument with the container's own output and exit status.

Source: docs/operate/images.md, "The grounds contract".
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firebox.cli.failures import EXIT_FAILED, EXIT_USAGE, report
from firebox.cli.one_request.one_request import container_settings, find_registry
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.domain.limits import StageName
from firebox.domain.model import File, Job
from firebox.engine.plan import command_line, is_compiled
from firebox.files.folder import write_files
from firebox.runtimes.runtime import BASE_ENVIRONMENT
from firebox.settings.limit_policy import limit_policy

_ESCAPE = re.compile(r"\\([\\nrt])")
_MEANS = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def read_code(argument: str) -> str:
    r"""Undo the escapes that put code on a single line: `\\`, `\n`, `\r`, `\t`. Other backslashes are kept."""
    return _ESCAPE.sub(lambda found: _MEANS[found[1]], argument)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run code and exit with its status; 128 + n for signal n. arguments: the language, which the image adds, and the code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if len(given) != 2:
            raise InvalidRequest(f"expected exactly one argument, the code, but got {len(given) - 1}")
        sys.exit(_run(given[0], read_code(given[1])))
    except (FireboxError, OSError, ValueError) as error:
        report(error)
        sys.exit(EXIT_USAGE if isinstance(error, InvalidRequest) else EXIT_FAILED)


def _run(language: str, code: str) -> int:
    settings = container_settings()
    policy = limit_policy(settings)
    runtime = find_registry(language, settings).resolve(language)
    job = Job(language=language, files=runtime.place([File(runtime.main_name, os.fsencode(code))]))
    sources = [file.name for file in job.files]
    with tempfile.TemporaryDirectory(prefix="code-", ignore_cleanup_errors=True) as folder:
        write_files(Path(folder), job.files)
        stages: list[StageName] = ["compile", "run"] if is_compiled(job, runtime, sources) else ["run"]
        for stage in stages:
            memory_bytes = policy.default_limits(stage, runtime).memory_bytes
            environment = {**BASE_ENVIRONMENT, "HOME": folder, "TMPDIR": tempfile.gettempdir(), **runtime.environment(stage)}
            status = _wait_for(command_line(stage, job, runtime, sources, memory_bytes), environment, folder)
            if status != 0:
                return status
    return 0


def _wait_for(words: list[str], environment: dict[str, str], folder: str) -> int:
    """Run a command and forward termination signals to it. It must be a child, since PID 1 of a container ignores signals."""
    with subprocess.Popen(words, env=environment, cwd=folder) as process:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, _frame: process.send_signal(received))
        status = process.wait()
    return status if status >= 0 else 128 - status
