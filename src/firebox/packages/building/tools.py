"""Programs of this machine that building needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from firebox.errors import BuildFailed

DEBIAN_PACKAGES = {"mksquashfs": "squashfs-tools", "unsquashfs": "squashfs-tools", "npm": "npm", "mmdebstrap": "mmdebstrap"}

_WORDS_SHOWN = 1500


def require(program: str) -> str:
    """Give where a program is. Raises: BuildFailed with the package that brings it."""
    found = shutil.which(program)
    if found is None:
        raise BuildFailed(f"{program} is not installed", hint=f"apt-get install {DEBIAN_PACKAGES.get(program, program)}")
    return found


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
