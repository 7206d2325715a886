"""Piston's own package files: a gzipped tar with `run`, `compile`, `pkg-info.json` and `environment`.

Source: Piston's package format, versions 2 and 3. What it does with one: `bash run MAIN ARGS...` in the folder with the
files, with the variables that `environment` exports, after `bash compile MAIN OTHERS...` where there is such a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import structs

from firebox.domain.errors import InvalidRequest, UnusablePackage
from firebox.domain.limits import LIMIT_NAMES, STAGES, LimitRequest, StageName
from firebox.files.large_archive import Bounds, unpack
from firebox.packages.installed.metadata import INFO_BYTES, MAX_INODES, PackageInfo, check_wanted_limits, read_info
from firebox.runtimes.runtime import Runtime
from firebox.settings.other_systems.piston_settings import override_names, override_value

MAGIC = b"\x1f\x8b"
INFO = "pkg-info.json"
RUN = "run"
COMPILE = "compile"
ENVIRONMENT = "environment"
MAIN_NAME = "file0.code"
"""What Piston calls a file without a name."""

_ELF = b"\x7fELF"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def home_of(language: str, version: str) -> str:
    """Give the folder where a program finds a Piston package: the one that was there when it was built."""
    return f"/piston/packages/{language}/{version}"


def unpack_archive(archive: Path, name: str, folder: Path, home: str, max_bytes: int, tell: Callable[[int], None]) -> PackageInfo:
    """Unpack a package into an empty folder and read what it says of itself. Blocks; to be called in a thread.

    home: where it will be seen, "" when that is not known yet. Raises: UnusablePackage; OSError; what `tell` raises.
    """
    try:
        unpack(archive, folder, Bounds(max_bytes, MAX_INODES, home), tell)
    except InvalidRequest as error:
        raise UnusablePackage(f"{name}: {error.message}") from None
    return read_folder_info(folder, name)


def read_folder_info(folder: Path, name: str) -> PackageInfo:
    """Read the description of an unpacked package, and see that it can be run. Raises: UnusablePackage, OSError."""
    data = _read(folder / INFO, INFO_BYTES)
    if data is None:
        raise UnusablePackage(f"{name}: there is no file {INFO} in it")
    return read_info(data, name)


def runtimes_of(info: PackageInfo, folder: Path, environment: Mapping[str, str]) -> list[Runtime]:
    """Make the runtimes of an unpacked package: its own language, or each one that it provides.

    folder: where it is now. environment: what its environment file exports. Raises: UnusablePackage, OSError.
    """
    name = f"{info.language}-{info.version}"
    if not _is_there(folder / RUN) and _is_there(folder / ENVIRONMENT):
        return []  # something that others need, and no language
    home = home_of(info.language, info.version)
    run = (*_command(folder, RUN, home, name), "{main}")
    compile_ = ((*_command(folder, COMPILE, home, name), "{sources}"),) if _is_there(folder / COMPILE) else ()
    provided = info.provides or (None,)
    runtimes: list[Runtime] = []
    for each in provided:
        language = each.language if each else info.language
        overrides = each.limit_overrides if each and each.limit_overrides else info.limit_overrides
        limits = limits_of(overrides, name)
        runtimes.append(
            Runtime(
                language=language,
                version=info.version,
                aliases=each.aliases if each else info.aliases,
                main_name=MAIN_NAME,
                compile=compile_,
                run=run,
                env={**environment, "PISTON_LANGUAGE": language},
                compile_limits=limits["compile"],
                run_limits=limits["run"],
                package=info.language if each else None,
                cache=info.cache or ("binary" if compile_ else "none"),
            )
        )
    return runtimes


def limits_of(overrides: Mapping[str, int], name: str) -> dict[StageName, LimitRequest]:
    """Translate Piston's names of limits, for each stage. Raises: UnusablePackage for one that is unknown or out of range."""
    limits: dict[StageName, LimitRequest] = {stage: LimitRequest() for stage in STAGES}
    for key, value in overrides.items():
        for setting in override_names(key):
            stage: StageName | None = next((each for each in STAGES if setting.startswith(f"{each}_")), None)
            limit = setting.partition("_")[2]
            if stage is None or limit not in LIMIT_NAMES:
                raise UnusablePackage(f"{name}: pkg-info.json overrides the limit {key[:64]!r}, which is unknown")
            limits[stage] = structs.replace(limits[stage], **{limit: override_value(setting, value)})
    check_wanted_limits(limits, name)
    return limits


def _command(folder: Path, file: str, home: str, name: str) -> tuple[str, ...]:
    """Say how a file of a package is started: scripts by bash, as Piston does; programs, and scripts of others, by themselves."""
    path = folder / file
    beginning = _read(path, 256, cut=True)
    if beginning is None:
        raise UnusablePackage(f"{name}: there is no file {file!r} in it")
    first = beginning.split(b"\n", 1)[0]
    by_itself = beginning.startswith(_ELF) or (first.startswith(b"#!") and not first.split(b"-", 1)[0].rstrip().endswith(b"sh"))
    if by_itself:
        path.chmod(0o755)
    return (f"{home}/{file}",) if by_itself else ("bash", f"{home}/{file}")


def _is_there(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read(path: Path, at_most_bytes: int, *, cut: bool = False) -> bytes | None:
    """Read a regular file that is no link; None when there is none. Raises: UnusablePackage when it is too large."""
    try:
        descriptor = os.open(path, _OPEN)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = opened.read(at_most_bytes + 1)
    if len(data) > at_most_bytes and not cut:
        raise UnusablePackage(f"{path.name} is larger than {at_most_bytes} bytes")
    return data[:at_most_bytes]
