"""`firebox doctor` and `firebox run` in a plain chroot: missing support is reported, with the command that fixes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a chroot")

ENTER = """
set -e
root=$1 bind=$2 proc=$3; shift 3
if [ "$bind" = yes ]; then mount --bind "$root" "$root"; fi
for entry in /*; do
    case $entry in /proc|/sys) continue;; esac
    if [ -L "$entry" ]; then ln -s "$(readlink "$entry")" "$root$entry"
    elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"; fi
done
mkdir "$root/proc" "$root/sys"
if [ "$proc" = yes ]; then mount -t proc proc "$root/proc"; fi
exec chroot "$root" "$@"
"""


def in_chroot(folder: Path, *words: str, bind: str = "no", proc: str = "yes") -> subprocess.CompletedProcess[str]:
    """Run `firebox` in a chroot that shows this machine's folders. bind: make its root a mount point first."""
    root = folder / "root"
    root.mkdir()
    command = [sys.executable, "-m", "firebox", *words]
    enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", ENTER, "bash", str(root), bind, proc, *command]
    return subprocess.run(enter, capture_output=True, text=True, env=environment(), timeout=120, check=False)


def fixes(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The hints for missing support."""
    assert "Traceback" not in done.stderr
    return {finding["name"]: finding["hint"] for finding in json.loads(done.stdout) if not finding["ok"]}


def test_without_proc_the_fix_is_to_mount_it(tmp_path: Path) -> None:
    done = in_chroot(tmp_path, "doctor", "--json", proc="no")
    assert (done.returncode, fixes(done)) == (1, {"sandbox": "mount -t proc proc /proc"})


def test_a_root_that_is_no_mount_point_has_to_become_one(tmp_path: Path) -> None:
    done = in_chroot(tmp_path, "doctor", "--json")
    assert done.returncode == 1
    assert "mount --bind DIR DIR" in fixes(done)["sandbox"]


def test_with_that_done_programs_run(tmp_path: Path) -> None:
    (tmp_path / "main.sh").write_text("echo it ran")
    done = in_chroot(tmp_path, "run", "--data-dir", str(tmp_path / "data"), str(tmp_path / "main.sh"), bind="yes")
    assert (done.stdout, done.stderr, done.returncode) == ("it ran\n", "", 0)
