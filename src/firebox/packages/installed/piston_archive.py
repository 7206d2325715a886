"""Piston package archives: a gzipped tar with `run`, `compile`, `pkg-info.json` and `environment`.

Source: Piston's package format, versions 2 and 3. Piston runs `bash run MAIN ARGS...` in the folder of the files, with the
variables that `environment` exports, after `bash compile MAIN OTHERS...` if that script exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import structs

from firebox.domain.errors import UnusablePackage
from firebox.domain.limits import LIMIT_NAMES, STAGES, LimitRequest, StageName
from firebox.packages.installed.metadata import PackageInfo, Provided, check_wanted_limits
from firebox.packages.installed.tree import FILE, opened
from firebox.runtimes.runtime import Runtime
from firebox.settings.other_systems.piston_settings import override_names, override_value

GZIP_MAGIC = b"\x1f\x8b"
RUN = "run"
COMPILE = "compile"
ENVIRONMENT = "environment"
MAIN_NAME = "file0.code"
"""Piston's name for an unnamed file."""

_ELF = b"\x7fELF"


def piston_home(language: str, version: str) -> str:
    """Return the folder where a Piston package is mounted: its path at build time."""
    return f"/piston/packages/{language}/{version}"


def piston_runtimes(info: PackageInfo, folder: Path, environment: Mapping[str, str]) -> Iterator[Runtime]:
    """Yield the runtimes of an unpacked package: one per provided language, or one for its own language.

    folder: its current location. environment: variables exported by its environment file. Raises: UnusablePackage, OSError.
    """
    name = f"{info.language}-{info.version}"
    if not is_regular_file(folder / RUN) and is_regular_file(folder / ENVIRONMENT):
        return  # a pure dependency, without a language
    home = piston_home(info.language, info.version)
    run = (*_command(folder, RUN, home, name), "{main}")
    compile_ = ((*_command(folder, COMPILE, home, name), "{sources}"),) if is_regular_file(folder / COMPILE) else ()
    itself = Provided(language=info.language, aliases=info.aliases)
    for each in info.provides or (itself,):
        limits = _limits(each.limit_overrides or info.limit_overrides, name)
        yield Runtime(
            language=each.language,
            version=info.version,
            aliases=each.aliases,
            main_name=MAIN_NAME,
            compile=compile_,
            run=run,
            env={**environment, "PISTON_LANGUAGE": each.language},
            compile_limits=limits["compile"],
            run_limits=limits["run"],
            package=info.language if info.provides else None,
            cache=info.cache or ("binary" if compile_ else "none"),
        )


def _limits(overrides: Mapping[str, int], name: str) -> dict[StageName, LimitRequest]:
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
    if not is_regular_file(path):
        raise UnusablePackage(f"{name}: the package has no file {file!r}")
    with opened(path, FILE) as descriptor:
        beginning = os.read(descriptor, 256)
        first = beginning.split(b"\n", 1)[0]
        is_program = first.startswith(b"#!") and not first.split(b"-", 1)[0].rstrip().endswith(b"sh")
        by_itself = is_program or beginning.startswith(_ELF)
        if by_itself:
            os.fchmod(descriptor, 0o755)
    return (f"{home}/{file}",) if by_itself else ("bash", f"{home}/{file}")


def is_regular_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
