"""Which runtimes a command works with: definitions that come with Firebox, the operator's own, and what is on PATH."""

from __future__ import annotations

import os
from collections.abc import Callable

import structlog

from firebox.config import Settings
from firebox.runtimes.definition import Definition, read_definitions, shipped_definitions
from firebox.runtimes.host import HostScan, scan_host

_log = structlog.get_logger("firebox.runtimes")


def find_definitions(settings: Settings) -> list[Definition]:
    """Read every definition, the operator's own first.

    Raises: SettingsError for one of the operator's that cannot be read.
    """
    return [*read_definitions(settings.runtimes_dir), *shipped_definitions()]


def find_runtimes(settings: Settings, only: Callable[[Definition], bool] | None = None) -> HostScan:
    """Look for the runtimes of this host. only: which definitions matter.

    Raises: SettingsError for a definition of the operator's that cannot be read.
    """
    scan = scan_host(os.environ.get("PATH", os.defpath), find_definitions(settings), data_folder=settings.data_dir, only=only)
    for problem in scan.problems:
        _log.debug("a tool cannot be used", problem=problem)
    return scan
