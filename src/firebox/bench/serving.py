"""A `firebox serve` process to measure."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from firebox.bench.contender import BenchmarkFailed
from firebox.bench.process_tree import ProcessTree

STOP_WITHIN_S = 30.0


class Served(Protocol):
    """A server under test. started_s: start time, as of time.perf_counter()."""

    url: str
    tree: ProcessTree
    started_s: float


class Server:
    """Started on a free port with its own data folder. A context manager. flags: further flags of `firebox serve`."""

    def __init__(self, command: Sequence[str], data_folder: Path, *flags: str) -> None:
        words = [*command, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_folder), "--log-level", "error"]
        words += flags
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.tree = ProcessTree(self._process.pid)
        self.url = ""

    def __enter__(self) -> Self:
        """Wait until it is ready. Raises: BenchmarkFailed when it exits instead; the reason is on stderr."""
        assert self._process.stdout is not None  # noqa: S101 - requested above
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"`firebox serve` exited with status {self._process.wait()}")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(self, *_exception: object) -> None:
        stop(self._process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server, and kill it after a timeout."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
