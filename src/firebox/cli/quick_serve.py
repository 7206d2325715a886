"""`firebox serve` without typer, for a valid command line: the server starts sooner and uses less memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from firebox.server.absent_modules import absent

with absent("typing_extensions"):  # msgspec imports it where it is installed, and does not need it
    from firebox.settings.settings_table import TABLE

_WITH_VALUE = {"--config": "config", **{setting.flag: setting.name for setting in TABLE if setting.kind != "bool"}}
_SWITCHES = {
    **{setting.flag: (setting.name, True) for setting in TABLE if setting.kind == "bool"},
    **{f"--no-{setting.flag[2:]}": (setting.name, False) for setting in TABLE if setting.kind == "bool"},
}


def serve_quickly(words: Sequence[str]) -> bool:
    """Serve until the server is stopped. Return False for a command line that typer has to explain.

    words: what follows `firebox serve`.
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
    """Parse flags. Return None for anything that typer has to explain."""
    flags: dict[str, object] = {}
    remaining = iter(words)
    for word in remaining:
        spelling, equals, value = word.partition("=")
        if word in _SWITCHES:
            name, is_on = _SWITCHES[word]
            flags[name] = is_on
        elif spelling in _WITH_VALUE:
            if not equals:
                value = next(remaining, "-")
                if value.startswith("-"):
                    return None
            flags[_WITH_VALUE[spelling]] = value
        else:
            return None
    return flags
