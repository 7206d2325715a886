"""`firebox serve` past typer, for a command line without a mistake: a server then starts sooner, and does without typer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firebox.server.absent_modules import absent

with absent("typing_extensions"):  # which msgspec loads where it is installed, and does not need
    from firebox.settings.settings_table import TABLE

_CONFIG = "--config"
_WITH_VALUE = {_CONFIG: "config", **{row.flag: row.name for row in TABLE if row.kind != "bool"}}
_SWITCHES = {
    **{row.flag: (row.name, True) for row in TABLE if row.kind == "bool"},
    **{f"--no-{row.flag[2:]}": (row.name, False) for row in TABLE if row.kind == "bool"},
}


def serve_quickly(words: Sequence[str]) -> bool:
    """Serve as the words after `firebox serve` say, until the server ends. False when there is anything that has to be explained.

    Raises: FireboxError, OSError.
    """
    flags = read_flags(words)
    if flags is None:
        return False
    from firebox.server.server_start import start_server

    config = flags.pop("config", None)
    start_server(flags, Path(str(config)) if config is not None else None)
    return True


def read_flags(words: Sequence[str]) -> dict[str, object] | None:
    """Read the words; None when there is anything that has to be explained."""
    flags: dict[str, object] = {}
    waiting = iter(words)
    for word in waiting:
        spelling, equals, value = word.partition("=")
        if word in _SWITCHES:
            name, is_on = _SWITCHES[word]
            flags[name] = is_on
        elif spelling in _WITH_VALUE:
            if not equals:
                value = next(waiting, "-")
                if value.startswith("-"):
                    return None
            flags[_WITH_VALUE[spelling]] = value
        else:
            return None
    return flags
