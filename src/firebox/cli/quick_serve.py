"""`firebox serve` without typer, for a valid command line: the server starts sooner and uses less memory.

Slow work that needs little code begins at once, while the other modules load.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from firebox.server.absent_modules import UNUSED_BY_SERVERS, absent

with absent("typing_extensions"):  # msgspec imports it where it is installed, and does not need it
    from firebox.settings.settings_table import TABLE

if TYPE_CHECKING:
    from firebox.sandbox.launcher.launcher_start import StartedLauncher
    from firebox.settings.settings import Settings

DESCRIPTORS = 65_536

_WITH_VALUE = {"--config": "config", **{setting.flag: setting.name for setting in TABLE if setting.kind != "bool"}}
_SWITCHES = {
    **{setting.flag: (setting.name, True) for setting in TABLE if setting.kind == "bool"},
    **{f"--no-{setting.flag[2:]}": (setting.name, False) for setting in TABLE if setting.kind == "bool"},
}


def serve_quickly(words: Sequence[str]) -> bool:
    """Serve as the words after `firebox serve` say. Return False for those that typer has to explain."""
    flags = read_flags(words)
    if flags is None:
        return False
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


def start_server(flags: Mapping[str, object], config: Path | None) -> None:
    """Serve until SIGTERM or SIGINT. flags, config: as for `load_settings`. Raises: SettingsError, OSError and others."""
    gc.disable()  # importing modules creates no garbage
    from firebox.doors.http.listening_socket import open_listener
    from firebox.engine.log import LazyLogger
    from firebox.server.logs import set_up_logs
    from firebox.service.available_runtimes import find_host_runtimes
    from firebox.settings.settings import load_settings

    settings = load_settings(flags, config)
    set_up_logs(settings.log_level, settings.log_format)
    for warning in settings.warnings:
        LazyLogger().warning("setting has no effect", reason=warning)
    listener = open_listener(settings)
    _raise_descriptor_limit()
    beside = ThreadPoolExecutor(2, "start")
    launcher = beside.submit(_begin_with_sandboxes, settings)
    scan = beside.submit(find_host_runtimes, settings)
    beside.shutdown(wait=False)
    try:
        with absent(*UNUSED_BY_SERVERS):
            from firebox.server.serve import serve
        serve(settings, listener, scan, launcher)
    finally:
        started = launcher.result()
        if started is not None:
            started.end()


def _begin_with_sandboxes(settings: Settings) -> StartedLauncher | None:
    """Start a launcher that can create a sandbox. Return None if it cannot: the executor finds and reports the reason."""
    from firebox.runtimes.prestart import hook_texts
    from firebox.sandbox.launcher.launcher_start import start_launcher
    from firebox.sandbox.spec import SandboxFailure, SandboxSpec

    try:
        launcher = start_launcher()
    except OSError:
        return None
    try:
        launcher.configure(uid_base=settings.uid_base, hooks=hook_texts())
        launcher.request_first(SandboxSpec(), is_smoke_test=True)
    except (OSError, SandboxFailure):
        launcher.end()
        return None
    return launcher


def _raise_descriptor_limit() -> None:
    """Raise the file descriptor limit: every connection and every sandbox needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
