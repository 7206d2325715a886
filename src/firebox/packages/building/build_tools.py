"""External programs that building requires."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from firebox.domain.errors import BuildFailed

BUILD_PROGRAMS = ("mmdebstrap", "mksquashfs", "unsquashfs")
"""Programs that every build needs."""
DEBIAN_PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools"}
"""Debian packages of programs, where the names differ."""

_WORDS_SHOWN = 1500


def require(*programs: str) -> None:
    """Check that programs are installed. Raises: BuildFailed naming all missing ones and the Debian packages to install."""
    missing = [program for program in dict.fromkeys(programs) if shutil.which(program) is None]
    if missing:
        packages = dict.fromkeys(DEBIAN_PACKAGES.get(program, program) for program in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise BuildFailed(f"{', '.join(missing)} {verb} not installed", hint=f"apt-get install {' '.join(packages)}")


def run(
    command: Sequence[str],
    timeout_s: float,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    label: str = "",
) -> bytes:
    """Run a program and return its standard output. label: its name in messages. Raises: BuildFailed with its last output."""
    name = label or command[0]
    require(command[0])
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder, env=environment, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{name} timed out after {timeout_s:g} s") from None
    except OSError as error:
        raise BuildFailed(f"{name} could not be started: {error}") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildFailed(f"{name} failed with status {done.returncode}", hint=words[-_WORDS_SHOWN:])
    return done.stdout
