"""External programs that building requires."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

from firebox.domain.errors import BuildFailed

BUILD_PROGRAMS = ("mmdebstrap", "mksquashfs", "unsquashfs")
"""Programs that every build needs."""
DEBIAN_PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "npm": "npm", "mmdebstrap": "mmdebstrap"}

_WORDS_SHOWN = 1500


def require(program: str) -> str:
    """Return the path of a program. Raises: BuildFailed naming the Debian package to install."""
    found = shutil.which(program)
    if found is None:
        raise _missing([program])
    return found


def require_all(programs: Iterable[str]) -> None:
    """Check upfront that all programs are installed. Raises: BuildFailed naming all missing ones."""
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
    label: str = "",
) -> bytes:
    """Run a program and return its standard output. label: name for messages, if it differs from the command.

    Raises: BuildFailed with the end of its output if it fails or times out.
    """
    name = label or Path(command[0]).name
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
        raise BuildFailed(f"{name} timed out after {timeout_s:g} s") from None
    except OSError as error:
        raise BuildFailed(f"{name} could not be started: {error}") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise BuildFailed(f"{name} failed with status {done.returncode}", hint=words[-_WORDS_SHOWN:])
    return done.stdout
