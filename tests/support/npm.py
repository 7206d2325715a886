"""Packages of npm for a test."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import require_tool


def install_locked(locked: Path, folder: Path) -> Path:
    """Install what a lock file says; return the folder, in which programs find it. locked: has the lock file and the programs."""
    npm = require_tool("npm")
    shutil.copytree(locked, folder, dirs_exist_ok=True)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
