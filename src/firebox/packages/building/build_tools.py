"""Programs of this machine that building needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from firebox.domain.errors import BuildFailed

BUILD_PROGRAMS = ("mmdebstrap", "mksquashfs", "unsquashfs")
"""What every build runs."""
DEBIAN_PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "npm": "npm", "mmdebstrap": "mmdebstrap"}

_WORDS_SHOWN = 1500


def require(program: str) -> str:
    """Give where a program is. Raises: BuildFailed with the package that brings it."""
    found = shutil.which(program)
    if found is None:
        raise _missing([program])
    return found


def require_all(programs: Iterable[str]) -> None:
    """Check that all of these are there, before any work. Raises: BuildFailed with every one that is missing."""
    missing = [program for program in dict.fromkeys(programs) if shutil.which(program) is None]
    if missing:
        raise _missing(missing)


def _missing(programs: Sequence[str]) -> BuildFailed:
    packages = dict.fromkeys(DEBIAN_PACKAGES.get(program, program) for program in programs)
    verb = "is" if len(programs) == 1 else "are"
    return BuildFailed(f"{', '.join(programs)} {verb} not installed", hint=f"apt-get install {' '.join(packages)}")


def run(
    command: Sequence[str],
    timeout_s: float,
    *,
    stdin: IO[bytes] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    called: str = "",
) -> bytes:
    """Run a program of this machine; returns its standard output. called: its name in messages, where it has another one.

    Raises: BuildFailed with its last words when it fails or takes longer.
    """
    name = called or Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            cwd=folder,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{name} takes longer than {timeout_s:g} s") from None
    except OSError as error:
        raise BuildFailed(f"{name} cannot be started: {error}") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildFailed(f"{name} failed with status {done.returncode}", hint=words[-_WORDS_SHOWN:])
    return done.stdout
