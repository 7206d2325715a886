"""Shims of version managers, and what their targets depend on.

Running a shim starts a shell, the slowest part of a startup. Its answer stays valid until something changes that its manager
depends on. A script of an unknown manager is run every time.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

_SCRIPT_BYTES = 1024
"""Longer files are no shims."""


class _Manager(NamedTuple):
    """A version manager. script: matches the end of its shims; program: what they are symlinks to.

    files: what its choice depends on, below its own folder, which contains that of the shims; `*` matches any name. home: the
    same below the user's home.
    """

    files: tuple[str, ...]
    script: re.Pattern[bytes] | None = None
    program: str = ""
    home: tuple[str, ...] = ()


_MANAGERS = (
    # pyenv, rbenv, nodenv, goenv, jenv, plenv, phpenv ...: all are modelled on rbenv.
    # Source: rbenv's README, "Choosing the Ruby version"; rbenv-rehash.
    _Manager(("version", "versions", "plugins"), re.compile(rb'exec "[^"\n]*/\w+env" exec "\$program" "\$@"\s*$')),
    # Source: asdf's documentation, "Versions" and "Configuration".
    _Manager(
        ("installs/*", "plugins"),
        re.compile(rb'exec (?:"[^"\n]*/|[\w./-]*/)?asdf"? exec "[^"\n]+" "\$@".*\s*$'),
        home=(".tool-versions", ".asdfrc"),
    ),
    # Source: mise's documentation, "Configuration" and "Shims".
    _Manager(
        ("installs/*",),
        program="mise",
        home=(".tool-versions", ".mise.toml", "mise.toml", ".config/mise", ".config/mise/*", ".config/mise/conf.d/*"),
    ),
    # Source: Volta's guide, "Understanding Volta"; volta-layout.
    _Manager(("tools/user/platform.json", "tools/image/*", "tools/user/bins/*"), program="volta-shim"),
)
_ALL_GO_BY = ("/mise.toml", "/etc/mise/config.toml", "/.*")
"""Shims are run in the root folder, which may contain a project's own files."""


def target_digest(shim: Path, path: str, environment: Mapping[str, str]) -> str | None:
    """Return a digest of everything that the target of a shim depends on; None if it is not the shim of a known manager.

    path, environment: PATH and the variables that the shim would be run with. Raises: OSError.
    """
    manager = _manager_of(shim)
    if manager is None:
        return None
    root, home = str(shim.parent.parent), environment.get("HOME", "/")
    patterns = [str(shim), *_ALL_GO_BY, *(f"{root}/{name}" for name in manager.files)]
    patterns += [f"{home}/{name}" for name in manager.home]
    # A manager set to "system" takes the next program on PATH.
    patterns += [folder for folder in path.split(":") if folder.startswith("/")]
    files = [file for pattern in patterns for file in _matching(pattern)]
    state = [(file, *_state(file)) for file in files]
    return hashlib.sha256(msgspec.json.encode([sorted(environment.items()), path, state])).hexdigest()[:16]


def _manager_of(shim: Path) -> _Manager | None:
    if shim.is_symlink():
        name = shim.resolve().name
        return next((each for each in _MANAGERS if each.program == name), None)
    if shim.parent.name != "shims":
        return None  # moved out of its manager's folder
    with shim.open("rb") as file:
        script = file.read(_SCRIPT_BYTES + 1)
    if len(script) > _SCRIPT_BYTES or not script.startswith(b"#!"):
        return None
    return next((each for each in _MANAGERS if each.script is not None and each.script.search(script)), None)


def _matching(pattern: str) -> Iterator[str]:
    """Yield the files that match a pattern, or the path itself, existing or not, if it contains no `*`."""
    if not pattern.endswith("*"):
        yield pattern
        return
    folder, beginning = os.path.split(pattern[:-1])
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return
    yield from (f"{folder}/{name}" for name in names if name.startswith(beginning))


def _state(file: str) -> tuple[int, ...]:
    """Return a key that changes when a file does; () if there is none."""
    try:
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
