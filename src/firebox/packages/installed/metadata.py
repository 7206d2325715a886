"""Metadata of a package, `pkg-info.json` and `runtimes.json`: untrusted input, even if signed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from firebox.domain.errors import InvalidRequest, UnusablePackage
from firebox.domain.limits import STAGES, LimitRequest, StageName, check_limits
from firebox.domain.model import CacheLevel
from firebox.packages.entry import Entry
from firebox.packages.machine import architecture as machine_architecture
from firebox.packages.machine import fits
from firebox.packages.repository.index import is_package_name
from firebox.packages.versions import is_range, is_version
from firebox.runtimes.definition import shipped_definitions
from firebox.runtimes.runtime import Runtime

INFO_BYTES = 4 << 20
"""Maximum size of pkg-info.json; ours lists every Debian package of an image."""
RUNTIMES_BYTES = 1 << 20
MAX_NAME = 100
MAX_INODES = 500_000
"""Maximum number of files, folders and links per package."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_Shape = TypeVar("_Shape")

_MAX_ITEMS = 1000
_MAX_WORD_CHARS = 4096
_MAX_PATTERN_CHARS = 300
_NESTED_REPEAT = re.compile(r"\((?:[^()]|\([^()]*\))*[*+}](?:[^()]|\([^()]*\))*\)[*+{]")
HOST_FIELDS = {"mounts", "layers", "on_host", "installed"}
"""Runtime fields that depend on the machine where the package is installed."""


class Provided(Struct, frozen=True, kw_only=True):
    """One of several languages that a Piston package provides."""

    language: str
    aliases: tuple[str, ...] = ()
    limit_overrides: dict[str, int] = field(default_factory=dict[str, int])


class PackageInfo(Struct, frozen=True, kw_only=True):
    """`pkg-info.json`. Source: Piston's package format, versions 2 and 3; `architecture`, `inputs` and `cache` are extensions."""

    language: str
    version: str
    author: str = ""
    dependencies: dict[str, str] = field(default_factory=dict[str, str])
    build_platform: str = ""
    aliases: tuple[str, ...] = ()
    provides: tuple[Provided, ...] = ()
    limit_overrides: dict[str, int] = field(default_factory=dict[str, int])
    architecture: str = ""
    inputs: tuple[str, ...] = ()
    cache: CacheLevel | None = None
    """Default cache level of an archive in Piston's format; None: derived from its stages."""


def check_package_name(language: str, version: str) -> None:
    """Check that a package id is a valid folder name. Raises: UnusablePackage."""
    if not is_package_name(language):
        raise UnusablePackage(f"{language[:MAX_NAME]!r} is not a valid package name: letters, digits and _ . + # - are allowed")
    if not is_version(version):
        raise UnusablePackage(f"{language}: {version[:MAX_NAME]!r} is not a valid version; example: 3.13.5")


def check_architecture(name: str, architecture: str) -> None:
    """Check that a package is for this machine. architecture: "" and "all" match any. Raises: UnusablePackage."""
    if not fits(architecture):
        here = machine_architecture()
        hint = f"look for a package built for {here}"
        raise UnusablePackage(f"{name} is built for {architecture[:MAX_NAME]!r}; this machine is {here}", hint=hint)


def read_info(data: bytes, source: str) -> PackageInfo:
    """Parse `pkg-info.json`. source: name of the package in messages. Raises: UnusablePackage."""
    info = _decode(data, PackageInfo, f"{source}: pkg-info.json")
    check_package_name(info.language, info.version)
    for language in [*info.aliases, *(name for each in info.provides for name in (each.language, *each.aliases))]:
        check_language(language, source)
    if len(info.provides) > _MAX_ITEMS or len(info.dependencies) > _MAX_ITEMS:
        raise UnusablePackage(f"{source}: pkg-info.json lists more than {_MAX_ITEMS} languages or dependencies")
    for name, wanted in info.dependencies.items():
        if not is_package_name(name) or not is_range(wanted):
            raise UnusablePackage(f"{source}: invalid dependency {name[:MAX_NAME]!r} {wanted[:MAX_NAME]!r}")
    check_architecture(source, info.architecture)
    return info


def check_matches(info: PackageInfo, entry: Entry) -> None:
    """Check that a package is the one that is announced: a signed one must not pass for another. Raises: UnusablePackage."""
    if (info.language, info.version) != (entry.language, entry.version):
        raise UnusablePackage(f"{entry.name}: the file contains a different package, {info.language}-{info.version}")
    if entry.dependencies and entry.dependencies != info.dependencies:
        raise UnusablePackage(
            f"{entry.name}: its repository announces the dependencies {_format_dependencies(entry.dependencies)}, "
            f"but the package declares {_format_dependencies(info.dependencies)}"
        )


def read_runtimes(data: bytes, source: str) -> list[Runtime]:
    """Parse `runtimes.json`. Raises: UnusablePackage."""
    where = f"{source}: runtimes.json"
    tables = _decode(data, list[dict[str, Any]], where)
    if not tables or len(tables) > _MAX_ITEMS:
        raise UnusablePackage(f"{where} has {len(tables)} runtimes; 1 to {_MAX_ITEMS} are allowed")
    known = {*Runtime.__struct_fields__} - HOST_FIELDS
    for table in tables:
        for key in table.keys() - known:
            raise UnusablePackage(f"{where}: the key {key[:MAX_NAME]!r} is not allowed in a package")
    runtimes = _decode(data, list[Runtime], where)
    for runtime in runtimes:
        _check_runtime(runtime, where)
    return runtimes


def check_language(name: str, source: str) -> None:
    """Reject a language name or alias that is unprintable, too long or cannot be used in a request. Raises: UnusablePackage."""
    if not name or len(name) > MAX_NAME or not name.isprintable() or name != name.strip() or "/" in name:
        raise UnusablePackage(f"{source}: {name[:MAX_NAME]!r} is not a valid language name")


def check_environment(variables: Mapping[str, str], source: str) -> None:
    """Reject environment variables that cannot be passed to a process. Raises: UnusablePackage."""
    if len(variables) > _MAX_ITEMS or sum(len(name) + len(value) for name, value in variables.items()) > _MAX_WORD_CHARS * 16:
        raise UnusablePackage(
            f"{source}: more than {_MAX_ITEMS} variables, or more than {_MAX_WORD_CHARS * 16} characters in total"
        )
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise UnusablePackage(f"{source}: {name[:MAX_NAME]!r} is not a valid environment variable")


def check_wanted_limits(wanted: Mapping[StageName, LimitRequest], source: str) -> None:
    """Check the limits that a package asks for. Raises: UnusablePackage."""
    try:
        for stage, request in wanted.items():
            check_limits(stage, request)
    except InvalidRequest as error:
        raise UnusablePackage(f"{source}: limit {error.where}: {error.message}") from None


def _check_runtime(runtime: Runtime, where: str) -> None:
    for name in runtime.names:
        check_language(name, where)
    if not is_version(runtime.version):
        raise UnusablePackage(f"{where}: {runtime.version[:MAX_NAME]!r} is not a valid version; example: 3.13.5")
    commands = [runtime.run, runtime.run_with_others, *runtime.compile]
    if not runtime.run or any(not command for command in runtime.compile):
        raise UnusablePackage(f"{where}: {runtime.language} has an empty command")
    _check_words(where, (word for command in commands for word in command))
    _check_words(where, (runtime.main_name, *runtime.extensions, runtime.package or ""))
    if not runtime.main_name or runtime.main_name.startswith("/") or ".." in runtime.main_name.split("/"):
        raise UnusablePackage(f"{where}: {runtime.main_name!r} is not a valid name for the main file")
    for variables in (runtime.env, runtime.compile_env):
        check_environment(variables, where)
    check_wanted_limits({stage: runtime.limits(stage) for stage in STAGES}, where)
    _check_pattern(runtime.name_pattern, where)
    for pattern in runtime.compile_args:
        if pattern not in _built_in_patterns():
            _check_pattern(f"({pattern})", where)


def _check_words(where: str, words: Iterable[str]) -> None:
    for count, word in enumerate(words, 1):
        if len(word) > _MAX_WORD_CHARS or "\0" in word or count > _MAX_ITEMS:
            raise UnusablePackage(f"{where}: a command has more than {_MAX_ITEMS} arguments, or an invalid one")


def _check_pattern(pattern: str, where: str) -> None:
    """Reject patterns that could backtrack forever: they are matched against client input outside of any sandbox."""
    try:
        groups = re.compile(pattern).groups if len(pattern) <= _MAX_PATTERN_CHARS else 0
    except (re.error, RecursionError, OverflowError):
        groups = 0
    if pattern and (groups < 1 or (_NESTED_REPEAT.search(pattern) and pattern not in _built_in_patterns())):
        raise UnusablePackage(
            f"{where}: name_pattern {pattern[:MAX_NAME]!r} must be a short regular expression with a group, and no "
            "nested repetition"
        )


@lru_cache(maxsize=1)
def _built_in_patterns() -> frozenset[str]:
    shipped = shipped_definitions()
    return frozenset(pattern for each in shipped for pattern in (each.name_pattern, *each.compile_args))


def _format_dependencies(dependencies: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {wanted}" for name, wanted in dependencies.items()) or "none"


def _decode(data: bytes, shape: type[_Shape], where: str) -> _Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UnusablePackage(f"{where} cannot be read: {error}") from None
