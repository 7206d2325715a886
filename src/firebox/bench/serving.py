"""Servers to measure: processes of their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from firebox.bench.contender import BenchmarkFailed
from firebox.bench.process_tree import ProcessTree

STOP_WITHIN_S = 30.0


class Served:
    """A server under test. A context manager that stops it. started_s: as of time.perf_counter()."""

    def __init__(self, words: Sequence[str], url: str = "", **options: Any) -> None:
        self.url = url
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen[bytes](words, stdin=subprocess.DEVNULL, **options)
        self.tree = ProcessTree(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


class Server(Served):
    """`firebox serve` on a free port with its own data folder. flags: its further flags."""

    def __init__(self, command: Sequence[str], data_folder: Path, *flags: str) -> None:
        words = [*command, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_folder), "--log-level", "error"]
        super().__init__([*words, *flags], stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        """Wait until it is ready. Raises: BenchmarkFailed when it exits instead; the reason is on stderr."""
        assert self._process.stdout is not None  # noqa: S101 - requested above
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"`firebox serve` exited with status {self._process.wait()}")
        self.url = json.loads(line)["url"]
        return self
