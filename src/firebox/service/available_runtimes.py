"""Runtimes available to a command: those of installed packages and those found on PATH."""

from __future__ import annotations

import os
from collections.abc import Callable

from firebox.engine.log import LazyLogger
from firebox.packages.installed.store import PackageStore
from firebox.packages.repository.sources import packages_folder
from firebox.runtimes.definition import Definition, read_definitions, shipped_definitions
from firebox.runtimes.host_runtimes import HostScan, scan_host
from firebox.runtimes.runtime import Runtime
from firebox.settings.settings import Settings

RuntimeFilter = Callable[[Definition | Runtime], bool]

_log = LazyLogger()


def find_definitions(settings: Settings, mentioning: str = "") -> list[Definition]:
    """Read all definitions, the operator's own first.

    mentioning: read only the built-in definitions that contain this name or extension, since reading all is slow.
    Raises: SettingsError if an operator's definition is invalid.
    """
    return [*read_definitions(settings.runtimes_dir), *shipped_definitions(mentioning)]


def open_store(settings: Settings) -> PackageStore:
    """Open the package store; it need not exist yet."""
    return PackageStore(packages_folder(settings))


def find_runtimes(settings: Settings, only: RuntimeFilter | None = None, mentioning: str = "") -> HostScan:
    """Find the runtimes of packages, then those of this host. only: filter. mentioning, errors: as for `find_definitions`."""
    packaged, problems = open_store(settings).runtimes()
    scan = find_host_runtimes(settings, only, mentioning)
    scan.runtimes[:0] = [runtime for runtime in packaged if only is None or only(runtime)]
    scan.problems.extend(problems)
    return scan


def find_host_runtimes(settings: Settings, only: RuntimeFilter | None = None, mentioning: str = "") -> HostScan:
    """Find the runtimes of this host. Arguments and errors are those of `find_runtimes`."""
    definitions = find_definitions(settings, mentioning)
    scan = scan_host(os.environ.get("PATH", os.defpath), definitions, data_folder=settings.data_dir, only=only)
    for problem in scan.problems:
        _log.debug("tool unusable", problem=problem)
    for each in scan.unprepared if settings.prepare_toolchains else ():
        _log.warning("toolchain not prepared", language=each.language, problem=each.reason)
    return scan
