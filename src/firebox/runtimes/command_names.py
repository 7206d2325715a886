"""Commands that the host lacks: symlinks in a folder at the end of PATH in sandboxes.

Debian has `python3` and no `python`; a client's `python main.py` works all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from firebox.runtimes.host_folders import STANDARD_FOLDERS, UnusableToolError, check_may_be_shown
from firebox.runtimes.search_path import is_program
from firebox.runtimes.toolchain_cache import PREPARED


def offer_commands(commands: Mapping[str, str], own_folders: Sequence[str], data_folder: Path) -> Path | None:
    """Create a folder with a symlink for every missing command. The folder appears atomically.

    commands: program by name. own_folders: folders of the runtime before the usual ones on PATH.
    Return None when nothing is missing, or when nothing in `data_folder` can be written or shown to programs.
    """
    folders = (*own_folders, *STANDARD_FOLDERS)
    missing = {
        name: program
        for name, program in commands.items()
        if not any(is_program(f"{folder}/{name}") for folder in folders) and is_program(program)
    }
    if not missing:
        return None
    digest = hashlib.sha256(msgspec.json.encode(sorted(missing.items()))).hexdigest()[:16]
    folder = data_folder.resolve() / PREPARED / f"commands-{digest}"
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _make(folder, missing)
        check_may_be_shown(folder.parent)
    except (OSError, UnusableToolError):
        return None
    return folder


def _make(folder: Path, commands: Mapping[str, str]) -> None:
    import shutil  # rarely needed
    import tempfile

    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, program in commands.items():
            (unfinished / name).symlink_to(program)
        unfinished.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was faster
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
