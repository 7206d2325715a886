"""Wire format of Piston v3: repositories, packages, executions and failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import UNSET, Struct, UnsetType

from firebox.domain import model
from firebox.domain.errors import FireboxError
from firebox.domain.limits import StageName
from firebox.doors.http.output import Texts
from firebox.doors.http.status import status_of
from firebox.doors.piston import wire
from firebox.packages.entry import Entry
from firebox.packages.installed.store import Installed
from firebox.runtimes.runtime import Runtime


class Repository(Struct, frozen=True):
    """A configured repository."""

    name: str


class Package(Struct, frozen=True, kw_only=True):
    """A package in a repository. size_bytes: unpacked, 0 if unknown."""

    package: str
    version: str
    repository: str
    author: str
    size_bytes: int
    architecture: str
    checksums: dict[str, str]
    dependencies: dict[str, str]
    buildfile: str
    download: str
    signed: bool
    installed: bool


class PackageRuntime(Struct, frozen=True):
    """A language that an installed package provides."""

    language: str
    version: str
    aliases: tuple[str, ...]


class InstalledPackage(Struct, frozen=True, kw_only=True):
    """An installed package. size_bytes: disk usage; requires: ids of its dependencies."""

    id: str
    package: str
    version: str
    repository: str
    kind: str
    size_bytes: int
    installed_at: datetime
    requires: tuple[str, ...]
    runtimes: list[PackageRuntime]


class PackageName(Struct, frozen=True):
    """The name and version of a package."""

    package: str
    version: str


class Purged(PackageName, frozen=True):
    """The result of purging a package's cache. entries: number of entries removed."""

    entries: int


class Installation(PackageName, frozen=True, tag_field="type", tag="result"):
    """The result of an installation. installed: ids of the new packages, dependencies first."""

    installed: list[str]


class Progress(Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """Progress of an installation. package: id of the package, possibly a dependency; total: 0 if unknown."""

    package: str
    step: str
    done: int
    total: int
    words: str


class Failure(Struct, frozen=True, omit_defaults=True):
    """Error response. code: stable, machine-readable; hint: suggested action."""

    message: str
    code: str = ""
    hint: str = ""


class StreamedFailure(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """Failure of an installation after its stream has started. status: HTTP status of the equivalent response."""

    status: int
    message: str
    code: str = ""
    hint: str = ""


class Execution(Struct, frozen=True, kw_only=True):
    """The result of a job. cache: cache level that served it."""

    package: str
    version: str
    language: str
    language_version: str
    run: wire.Stage
    compile: wire.Stage | UnsetType = UNSET
    cache: model.CacheLevel


def from_entry(entry: Entry, *, installed: bool) -> Package:
    return Package(
        package=entry.language,
        version=entry.version,
        repository=entry.repository,
        author=entry.author,
        size_bytes=entry.size_bytes,
        architecture=entry.architecture,
        checksums=entry.checksums,
        dependencies=entry.dependencies,
        buildfile=entry.buildfile,
        download=entry.download,
        signed=bool(entry.signature),
        installed=installed,
    )


def from_installed(package: Installed, runtimes: Iterable[Runtime]) -> InstalledPackage:
    return InstalledPackage(
        id=package.id,
        package=package.entry.language,
        version=package.entry.version,
        repository=package.entry.repository,
        kind=package.kind,
        size_bytes=package.size_bytes,
        installed_at=package.installed_at,
        requires=package.requires,
        runtimes=[PackageRuntime(runtime.language, runtime.version, runtime.aliases) for runtime in runtimes],
    )


def from_installation(entry: Entry, installed: Sequence[Installed]) -> Installation:
    return Installation(entry.language, entry.version, [each.id for each in installed])


def from_result(result: model.Result, package: Installed, texts: Mapping[StageName, Texts]) -> Execution:
    """Convert a result. If compilation failed, `run` repeats the compile stage, as in v2. texts: as in v2."""
    execution = wire.from_result(result, texts)
    return Execution(
        package=package.entry.language,
        version=package.entry.version,
        language=execution.language,
        language_version=execution.version,
        run=execution.run,
        compile=execution.compile,
        cache=result.cache,
    )


def from_error(error: FireboxError) -> tuple[int, Failure]:
    """Convert a failure to status and body. Unlike v2, statuses are specific: a conflict is 409."""
    return status_of(error), Failure(wire.words_of(error), error.code, error.hint)
