"""Piston package archives: a gzipped tar with `run`, `compile`, `pkg-info.json` and `environment`.

Source: Piston's package format, versions 2 and 3. Piston runs `bash run MAIN ARGS...` in the folder of the files, with the
variables that `environment` exports, after `bash compile MAIN OTHERS...` if that script exists.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import structs

from firebox.domain.errors import InvalidRequest, UnusablePackage
from firebox.domain.limits import LIMIT_NAMES, STAGES, LimitRequest, StageName
from firebox.files.large_archive import Bounds, unpack_large
from firebox.packages.installed.metadata import INFO_BYTES, MAX_INODES, PackageInfo, check_wanted_limits, read_info
from firebox.packages.installed.store import INFO
from firebox.runtimes.runtime import Runtime
from firebox.settings.other_systems.piston_settings import override_names, override_value

MAGIC = b"\x1f\x8b"
RUN = "run"
COMPILE = "compile"
ENVIRONMENT = "environment"
MAIN_NAME = "file0.code"
"""Piston's name for an unnamed file."""

_ELF = b"\x7fELF"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def piston_home(language: str, version: str) -> str:
    """Return the folder where a Piston package is mounted: its path at build time."""
    return f"/piston/packages/{language}/{version}"


def unpack_archive(
    archive: Path, folder: Path, on_progress: Callable[[int], None], *, name: str, home: str, max_bytes: int
) -> PackageInfo:
    """Unpack a package into an empty folder and read its metadata. Blocks; call it in a thread.

    home: where the folder will be mounted, "" if unknown. Raises: UnusablePackage; OSError; whatever `on_progress` raises.
    """
    try:
        unpack_large(archive, folder, Bounds(max_bytes, MAX_INODES, home), on_progress)
    except InvalidRequest as error:
        raise UnusablePackage(f"{name}: {error.message}") from None
    return read_folder_info(folder, name)


def read_folder_info(folder: Path, name: str) -> PackageInfo:
    """Read the metadata of an unpacked package. Raises: UnusablePackage, OSError."""
    data = _read(folder / INFO, INFO_BYTES)
    if data is None:
        raise UnusablePackage(f"{name}: the package has no file {INFO}")
    return read_info(data, name)


def piston_runtimes(info: PackageInfo, folder: Path, environment: Mapping[str, str]) -> list[Runtime]:
    """Create the runtimes of an unpacked package: one per provided language, or one for its own language.

    folder: its current location. environment: variables exported by its environment file. Raises: UnusablePackage, OSError.
    """
    name = f"{info.language}-{info.version}"
    if not _is_regular_file(folder / RUN) and _is_regular_file(folder / ENVIRONMENT):
        return []  # a pure dependency, without a language
    home = piston_home(info.language, info.version)
    run = (*_command(folder, RUN, home, name), "{main}")
    compile_ = ((*_command(folder, COMPILE, home, name), "{sources}"),) if _is_regular_file(folder / COMPILE) else ()
    provided = info.provides or (None,)
    runtimes: list[Runtime] = []
    for each in provided:
        language = each.language if each else info.language
        overrides = each.limit_overrides if each and each.limit_overrides else info.limit_overrides
        limits = parse_limit_overrides(overrides, name)
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


def parse_limit_overrides(overrides: Mapping[str, int], name: str) -> dict[StageName, LimitRequest]:
    """Convert Piston's limit overrides to limits per stage. Raises: UnusablePackage for unknown or invalid ones."""
    limits: dict[StageName, LimitRequest] = {stage: LimitRequest() for stage in STAGES}
    for key, value in overrides.items():
        for setting in override_names(key):
            stage: StageName | None = next((each for each in STAGES if setting.startswith(f"{each}_")), None)
            limit = setting.partition("_")[2]
            if stage is None or limit not in LIMIT_NAMES:
                raise UnusablePackage(f"{name}: pkg-info.json overrides an unknown limit, {key[:64]!r}")
            limits[stage] = structs.replace(limits[stage], **{limit: override_value(setting, value)})
    check_wanted_limits(limits, name)
    return limits


def _command(folder: Path, file: str, home: str, name: str) -> tuple[str, ...]:
    """Return the command that runs a script: `bash FILE` as in Piston, unless it is an ELF program or has a different shebang."""
    path = folder / file
    beginning = _read(path, 256, cut=True)
    if beginning is None:
        raise UnusablePackage(f"{name}: the package has no file {file!r}")
    first = beginning.split(b"\n", 1)[0]
    by_itself = beginning.startswith(_ELF) or (first.startswith(b"#!") and not first.split(b"-", 1)[0].rstrip().endswith(b"sh"))
    if by_itself:
        path.chmod(0o755)
    return (f"{home}/{file}",) if by_itself else ("bash", f"{home}/{file}")


def _is_regular_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _read(path: Path, at_most_bytes: int, *, cut: bool = False) -> bytes | None:
    """Read a regular file without following symlinks; None if there is none. Raises: UnusablePackage if it is too large."""
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
