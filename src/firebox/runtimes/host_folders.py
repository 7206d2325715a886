"""Folders of the host: which ones a runtime needs, and which ones must never be shown."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from firebox.sandbox.plan.mounts import COVERED, STANDARD_TREES

STANDARD_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
"""The start of every program's PATH."""

SHARED_STORES = ("/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew", "/snap")
"""Stores of package managers, whose programs depend on each other across the whole folder: mounted whole."""

_TOO_MUCH = ("/", "/boot", "/home", "/media", "/mnt", "/root", "/srv", "/var", "/var/lib")


class UnusableToolError(Exception):
    """A tool exists but cannot be used. The message explains why."""


class MissingShimTargetError(UnusableToolError):
    """A shim has no target: it exits like a shell that finds no program. Source: POSIX, "Exit Status for Commands"."""


def is_standard(path: Path) -> bool:
    """Return whether every sandbox shows `path`, a real path."""
    return any(path.is_relative_to(tree) for tree in STANDARD_TREES)


def prefix_of(executable: Path) -> Path:
    """Return the folder a tool was installed into: the parent of its `bin`, or its own folder."""
    folder = executable.parent
    return folder.parent if folder.name in {"bin", "sbin"} else folder


def folders_to_show(wanted: Iterable[str], executables: Iterable[Path]) -> tuple[str, ...]:
    """Return the real folders to mount for `executables`, without those that every sandbox shows.

    wanted: folders named by the definition, patterns allowed; missing ones are ignored.
    Raises: UnusableToolError for a folder hidden by one of the sandbox's own, or one that would show a home.
    """
    named = [Path(path).resolve() for pattern in wanted for path in _matching(pattern)]
    shown = {_store(folder) or folder for folder in named if folder.is_dir()}
    # In case the definition forgot it: at least the program itself must be visible.
    real = [executable.resolve() for executable in executables]
    shown |= {_store(path) or path.parent for path in real if not any(path.is_relative_to(folder) for folder in shown)}
    shown = {folder for folder in shown if not is_standard(folder)}
    for folder in shown:
        if any(folder.is_relative_to(covered) for covered in COVERED):
            raise UnusableToolError(f"{folder} is hidden by a folder of the sandbox")
        check_may_be_shown(folder)
    return tuple(sorted(str(folder) for folder in shown if not shown.intersection(folder.parents)))


def _matching(pattern: str) -> list[str]:
    import glob  # not needed for the system's programs

    return glob.glob(pattern)  # noqa: PTH207 - patterns are absolute


def _store(path: Path) -> Path | None:
    return next((Path(store) for store in SHARED_STORES if path.is_relative_to(store)), None)


def check_may_be_shown(folder: Path) -> None:
    """Raises: UnusableToolError for a folder, a real path, that shows too much or is unreadable for programs."""
    home = Path.home().resolve()
    if str(folder) in _TOO_MUCH or home.is_relative_to(folder) or folder == home / ".local":
        raise UnusableToolError(f"showing {folder} to programs would show too much")
    if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
        raise UnusableToolError(f"{folder} is not readable by others, and programs run as another user")
