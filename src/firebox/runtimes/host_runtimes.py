"""Runtimes of this machine: programs on PATH that match a definition, with their versions, looked up in parallel.

For each program named by a definition, in any folder of PATH: resolve shims of version managers, get the version, and find the
other tools it needs and the folders that sandboxes must show.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, field

from firebox.runtimes.build_runtime import commands_of, make_runtime, own_folders
from firebox.runtimes.command_names import offer_commands
from firebox.runtimes.definition import Definition, Tool, fill, shipped_definitions
from firebox.runtimes.host_folders import MissingShimTargetError, UnusableToolError, folders_to_show
from firebox.runtimes.host_tools import ask_version, environment_of_tools, find_tool, real_program, tool_values
from firebox.runtimes.runtime import Runtime
from firebox.runtimes.search_path import SearchPath
from firebox.runtimes.shims import target_digest
from firebox.runtimes.toolchain_cache import Preparation, Unprepared, plan_preparation

_CACHE_FORMAT = 1
_THREADS = 16
_NOTHING_PREPARED = "/nonexistent"


class HostScan(Struct, frozen=True):
    """The result of a scan. problems: messages about tools that exist but cannot be used."""

    runtimes: list[Runtime] = field(default_factory=list[Runtime])
    problems: list[str] = field(default_factory=list[str])
    preparations: list[Preparation] = field(default_factory=list[Preparation])
    """Work that makes some of them faster, to be done once."""
    unprepared: list[Unprepared] = field(default_factory=list[Unprepared])
    """Toolchains that stay slow, because nothing in the data folder can be shown to programs."""


class _Found(NamedTuple):
    """The program of a definition. executable: the path to run it by."""

    definition: Definition
    executable: Path
    version: str


class _Cached(Struct):
    """The file of a `_DetectionCache`. tools: executable and version by key; "" and a message for a shim without a target."""

    format: int = _CACHE_FORMAT
    tools: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


class _DetectionCache:
    """A file with the versions of tools, valid while those do not change. A missing, damaged or read-only one is no error."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, tuple[str, str]] = {}
        self._used: dict[str, tuple[str, str]] = {}
        if file is not None:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                content = msgspec.json.decode(file.read_bytes(), type=_Cached)
                self._known = content.tools if content.format == _CACHE_FORMAT else {}

    def get(self, key: str) -> tuple[str, str] | None:
        """Return executable and version."""
        known = self._known.get(key)
        if known is not None:
            self._used[key] = known
        return known

    def put(self, key: str, *, executable: str, version: str) -> None:
        """Remember a program. executable: "" for a shim of nothing; version is then why."""
        self._used[key] = (executable, version)

    def save(self, *, complete: bool) -> None:
        """Write the file if anything changed. complete: every tool was looked up, so unused entries are dropped."""
        tools = self._used if complete else {**self._known, **self._used}
        if self._file is None or tools == self._known:
            return
        import tempfile  # rarely needed

        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_Cached(tools=tools))))
            Path(name).replace(self._file)


_Completed = tuple[Runtime, Preparation | Unprepared | None]
"""A runtime, and its preparation if it needs one."""


def scan_host(
    path: str,
    definitions: Iterable[Definition] | None = None,
    *,
    data_folder: Path | None = None,
    only: Callable[[Definition], bool] | None = None,
) -> HostScan:
    """Scan the host for runtimes.

    definitions: None for those that ship with Firebox; the first of several with the same language and package wins.
    data_folder: where versions are cached and toolchains prepared; None: neither. only: selects definitions.
    """
    chosen: dict[tuple[str, str | None], Definition] = {}
    for definition in shipped_definitions() if definitions is None else definitions:
        chosen.setdefault((definition.language, definition.package), definition)
    asked = [definition for definition in chosen.values() if only is None or only(definition)]
    search = SearchPath(path)
    cache = _DetectionCache(data_folder / "detected-tools.json" if data_folder else None)
    candidates = [(definition, program) for definition in asked for program in search.find(definition.detect.programs)]
    scan = HostScan()

    def ask(candidate: tuple[Definition, Path]) -> _Found | str:
        return _ask(*candidate, path, cache)

    def complete(found: _Found) -> _Completed | str:
        return _complete(found, search, path, data_folder, cache)

    with _workers(len(candidates)) as do_each:
        found = _one_a_version(do_each(ask, candidates), scan.problems)
        for answer in do_each(complete, found):
            if isinstance(answer, str):
                scan.problems.append(answer)
            else:
                runtime, preparation = answer
                scan.runtimes.append(runtime)
                if isinstance(preparation, Preparation):
                    scan.preparations.append(preparation)
                elif preparation is not None:
                    scan.unprepared.append(preparation)
    cache.save(complete=only is None)
    return scan


@contextlib.contextmanager
def _workers(wanted: int) -> Generator[Callable[..., Iterable[Any]]]:
    """Yield a function like the built-in `map`, parallel if there is more than one item."""
    if wanted < 2:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        yield pool.map


def _one_a_version(answers: Iterable[_Found | str], problems: list[str]) -> Iterator[_Found]:
    """Yield the first program of each version of a definition; record the problems of the others."""
    seen: set[tuple[int, str]] = set()
    for answer in answers:
        if isinstance(answer, str):
            problems.append(answer)
        elif (id(answer.definition), answer.version) not in seen:
            seen.add((id(answer.definition), answer.version))
            yield answer


def _ask(definition: Definition, candidate: Path, path: str, cache: _DetectionCache) -> _Found | str:
    """Resolve `candidate` and get its version. Return a message on failure."""
    try:
        fingerprint = _fingerprint(definition.detect)
        known = _known(_key_of(fingerprint, candidate), cache)
        if known is not None:
            return _Found(definition, *known)
        executable, is_known_shim = _real_program(definition.detect, candidate, path, cache)
        key = _key_of(fingerprint, executable)
        known = _known(key, cache)
        version = known[1] if known is not None else ask_version(definition.detect, executable, path)
        # Not for a shim of an unknown manager: its target may change while the shim does not.
        if is_known_shim or executable.resolve() == candidate.resolve():
            cache.put(key, executable=str(executable), version=version)
        return _Found(definition, executable, version)
    except (UnusableToolError, OSError) as error:
        return f"{definition.language}: {candidate}: {error}"


def _real_program(tool: Tool, candidate: Path, path: str, cache: _DetectionCache) -> tuple[Path, bool]:
    """Resolve `candidate`. Return the real program, and whether it is the shim of a known manager.

    Such a shim is run only if something changed that its answer depends on. Raises: UnusableToolError, OSError.
    """
    decided_by = target_digest(candidate, path, environment_of_tools(path)) if tool.locate else None
    if decided_by is None:
        return real_program(tool, candidate, path), False
    key = f"{_fingerprint(tool)}:shim:{decided_by}"
    absent = cache.get(key)
    if absent is not None and not absent[0]:
        raise MissingShimTargetError(absent[1])
    known = _known(key, cache)
    try:
        executable = known[0] if known is not None else real_program(tool, candidate, path)
    except MissingShimTargetError as error:
        cache.put(key, executable="", version=str(error))
        raise
    cache.put(key, executable=str(executable), version="")
    return executable, True


def _fingerprint(tool: Tool) -> str:
    return hashlib.sha256(msgspec.json.encode(tool)).hexdigest()[:16]


def _key_of(fingerprint: str, program: Path) -> str:
    """Return the key of a program's file in its current state, for one definition. Raises: OSError."""
    real = program.resolve()
    status = real.stat()
    return f"{fingerprint}:{real}:{status.st_mtime_ns}:{status.st_size}"


def _known(key: str, cache: _DetectionCache) -> tuple[Path, str] | None:
    """Return an executable and its version from the cache, if it still exists."""
    known = cache.get(key)
    return (Path(known[0]), known[1]) if known is not None and os.access(known[0], os.X_OK) else None


def _complete(found: _Found, search: SearchPath, path: str, data_folder: Path | None, cache: _DetectionCache) -> _Completed | str:
    """Create the runtime with its other tools and folders. Return a message if something is missing."""
    definition = found.definition
    executables = [found.executable]

    def real(tool: Tool, candidate: Path) -> Path:
        return _real_program(tool, candidate, path, cache)[0]

    try:
        values = tool_values(found.executable)
        for name in definition.tools:
            tool = find_tool(definition.tool(name), search, real, found.executable.resolve().parent)
            executables.append(tool)
            values[name] = str(tool)
        folders = folders_to_show([fill(mount, values) for mount in definition.mounts], executables)
    except (UnusableToolError, OSError) as error:
        return f"{definition.language} {found.version}: {found.executable}: {error}"
    preparation: Preparation | Unprepared | None = None
    if definition.prepare and data_folder is not None:
        preparation = plan_preparation(definition, found.version, values, path=path, data_folder=data_folder)
    values["prepared"] = _NOTHING_PREPARED
    if isinstance(preparation, Preparation):
        folders += (str(preparation.folder.parent),)
        values["prepared"] = preparation.shown_at
    commands = None
    if data_folder is not None:
        commands = offer_commands(commands_of(definition, values), own_folders(executables), data_folder)
    if commands is not None:
        folders += (str(commands.parent),)
    return make_runtime(definition, found.version, values, executables, tuple(dict.fromkeys(folders)), commands), preparation
