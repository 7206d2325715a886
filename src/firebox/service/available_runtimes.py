"""Which runtimes a command works with: those of installed packages, and what the definitions find on PATH."""

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

Only = Callable[[Definition | Runtime], bool]

_log = LazyLogger()


def find_definitions(settings: Settings, mentioning: str = "") -> list[Definition]:
    """Read every definition, the operator's own first.

    mentioning: of those that come with Firebox only the ones that hold this name or ending: reading all takes a while.
    Raises: SettingsError for one of the operator's that cannot be read.
    """
    return [*read_definitions(settings.runtimes_dir), *shipped_definitions(mentioning)]


def open_store(settings: Settings) -> PackageStore:
    """Open the store of installed packages; it need not exist yet."""
    return PackageStore(packages_folder(settings))


def find_runtimes(settings: Settings, only: Only | None = None, mentioning: str = "") -> HostScan:
    """Look for the runtimes of packages and of this host, in this order. only: which of them matter.

    mentioning: as of `find_definitions`.
    Raises: SettingsError for a definition of the operator's that cannot be read.
    """
    packaged, problems = open_store(settings).runtimes()
    scan = find_host_runtimes(settings, only, mentioning)
    scan.runtimes[:0] = [runtime for runtime in packaged if only is None or only(runtime)]
    scan.problems.extend(problems)
    return scan


def find_host_runtimes(settings: Settings, only: Only | None = None, mentioning: str = "") -> HostScan:
    """Look for the runtimes of this host alone. Arguments and errors as of `find_runtimes`."""
    definitions = find_definitions(settings, mentioning)
    scan = scan_host(os.environ.get("PATH", os.defpath), definitions, data_folder=settings.data_dir, only=only)
    for problem in scan.problems:
        _log.debug("a tool cannot be used", problem=problem)
    for each in scan.unprepared if settings.prepare_toolchains else ():
        _log.warning("toolchain stays slow", language=each.language, problem=each.reason)
    return scan
