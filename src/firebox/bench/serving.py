"""A real `firebox serve` beside us."""

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
    """A server under test. started_s: when it was started, as of time.perf_counter()."""

    url: str
    tree: ProcessTree
    started_s: float


class Server:
    """Started with a free port and a folder of its own. A context manager. flags: more of `firebox serve`."""

    def __init__(self, command: Sequence[str], data_folder: Path, *flags: str) -> None:
        words = [*command, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_folder), "--log-level", "error"]
        words += flags
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.tree = ProcessTree(self._process.pid)
        self.url = ""

    def __enter__(self) -> Self:
        """Wait until it answers. Raises: BenchmarkFailed when it ends instead; it has said why on stderr."""
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"`firebox serve` ended with status {self._process.wait()}")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(self, *_exception: object) -> None:
        stop(self._process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and end it when it does not."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
