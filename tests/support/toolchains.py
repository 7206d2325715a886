"""What Go needs before it is quick, made once per machine: cold, the smallest program takes ten seconds of CPU time."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.host_runtimes import scan_host
from firebox.runtimes.toolchain_cache import Preparation
from tests.conftest import missing, require_tool

CACHE = Path.home() / ".cache" / "firebox-toolchains"
KEPT = 2
"""Each takes 60 MB; older ones are removed."""


def prepare_go(data: Path) -> Path:
    """Give a data folder what a server would prepare there for Go; return the folder, which GOCACHE may name."""
    require_tool("go")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = _plan(CACHE)
        if not kept.done:
            _execute(kept)
        os.utime(kept.folder)
        for old in sorted(kept.folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old)
        given = _plan(data)
        if not given.done:
            shutil.copytree(kept.folder, given.folder)
    return given.folder


def _plan(data: Path) -> Preparation:
    scan = scan_host(os.environ["PATH"], shipped_definitions("go"), data_folder=data)
    if not scan.preparations:
        missing(f"nothing can be prepared for Go: {scan.unprepared + scan.problems}")
    return scan.preparations[0]


def _execute(planned: Preparation) -> None:
    """Do what the preparation does, but not at idle priority: a test waits for it."""
    unfinished = planned.folder.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        for name, content in planned.files.items():
            Path(work, name).write_text(content)
        for command in planned.commands:
            words = [word.replace(str(planned.folder), str(unfinished)) for word in command]
            subprocess.run(words, cwd=work, env={"PATH": planned.path, "HOME": work, "TMPDIR": work}, check=True, timeout=280)
    unfinished.rename(planned.folder)
