"""Which folders of the host a runtime needs to be shown, and which must never be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from firebox.sandbox.plan.mounts import COVERED, STANDARD_TREES

STANDARD_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
"""What PATH of every program has."""

SHARED_STORES = ("/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew", "/snap")
"""Package managers whose programs lean on each other all over one folder: shown whole."""

_TOO_MUCH = ("/", "/boot", "/home", "/media", "/mnt", "/root", "/srv", "/var", "/var/lib")


class UnusableToolError(Exception):
    """A tool is there and still cannot be used. The message says why."""


class StandsForNothingError(UnusableToolError):
    """A shim says that there is no such program, as a shell would. Source: POSIX, "Exit Status for Commands"."""


def is_standard(path: Path) -> bool:
    """Tell whether every sandbox shows `path`, a real path."""
    return any(path.is_relative_to(tree) for tree in STANDARD_TREES)


def prefix_of(executable: Path) -> Path:
    """Give the folder a tool was installed into: above `bin`, or else the one it lies in."""
    folder = executable.parent
    return folder.parent if folder.name in {"bin", "sbin"} else folder


def folders_to_show(wanted: Iterable[str], executables: Iterable[Path]) -> tuple[str, ...]:
    """Give the real folders to mount so that `executables` work, without those that every sandbox shows.

    wanted: folders as the definition names them, patterns allowed; ones that do not exist are left out.
    Raises: UnusableToolError where one is covered by a sandbox's own folder, or would show somebody's home.
    """
    named = [Path(path).resolve() for pattern in wanted for path in _matching(pattern)]
    shown = {_store(folder) or folder for folder in named if folder.is_dir()}
    # What a definition forgot: at least the program itself has to be seen.
    real = [executable.resolve() for executable in executables]
    shown |= {_store(path) or path.parent for path in real if not any(path.is_relative_to(folder) for folder in shown)}
    shown = {folder for folder in shown if not is_standard(folder)}
    for folder in shown:
        if any(folder.is_relative_to(covered) for covered in COVERED):
            raise UnusableToolError(f"{folder} is covered by a sandbox's own folder")
        check_may_be_shown(folder)
    return tuple(sorted(str(folder) for folder in shown if not shown.intersection(folder.parents)))


def _matching(pattern: str) -> list[str]:
    import glob  # programs of the system need no folder

    return glob.glob(pattern)  # noqa: PTH207 - patterns are absolute


def _store(path: Path) -> Path | None:
    return next((Path(store) for store in SHARED_STORES if path.is_relative_to(store)), None)


def check_may_be_shown(folder: Path) -> None:
    """Raises: UnusableToolError for a folder, a real path, that would show too much, or that programs could not read."""
    home = Path.home().resolve()
    if str(folder) in _TOO_MUCH or home.is_relative_to(folder) or folder == home / ".local":
        raise UnusableToolError(f"showing {folder} to programs would show too much")
    if os.geteuid() == 0 and folder.stat().st_mode & 0o005 != 0o005:
        raise UnusableToolError(f"{folder} cannot be read by others, as whom programs run")
