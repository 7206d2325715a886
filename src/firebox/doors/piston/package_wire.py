"""Version 3's JSON: packages of repositories, installed ones, what ran with one, and failures."""

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
from firebox.packages.entry import Progress as PackageProgress
from firebox.packages.installed.store import Installed
from firebox.runtimes.runtime import Runtime


class Repository(Struct, frozen=True):
    """A repository, by its name in the settings."""

    name: str


class Package(Struct, frozen=True, kw_only=True):
    """A package as its repository announces it. size_bytes: unpacked, 0 when nobody says."""

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
    """A language that an installed package brings."""

    language: str
    version: str
    aliases: tuple[str, ...]


class InstalledPackage(Struct, frozen=True, kw_only=True):
    """An installed package. size_bytes: what it takes of the disk; requires: ids of what it depends on."""

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
    """Which package it was."""

    package: str
    version: str


class Purged(Struct, frozen=True):
    """A package whose cache was purged. entries: how many there were."""

    package: str
    version: str
    entries: int


class Installation(Struct, frozen=True, kw_only=True, tag_field="type", tag="result"):
    """A package is installed. installed: ids of what is new, dependencies first."""

    package: str
    version: str
    installed: list[str]


class Progress(Struct, frozen=True, kw_only=True, tag_field="type", tag="progress"):
    """How far an installation is. package: id of what it is about, a dependency perhaps; total: 0 when unknown."""

    package: str
    step: str
    done: int
    total: int
    words: str


class Failure(Struct, frozen=True, omit_defaults=True):
    """Every answer that is not a success. code: stable, for machines; hint: what can be done."""

    message: str
    code: str = ""
    hint: str = ""


class StreamedFailure(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="error"):
    """An installation that failed after its stream had begun. status: what the answer would have been."""

    status: int
    message: str
    code: str = ""
    hint: str = ""


class Execution(Struct, frozen=True, kw_only=True):
    """What is left of a job. cache: which level of it served the job."""

    package: str
    version: str
    language: str
    language_version: str
    run: wire.Stage
    compile: wire.Stage | UnsetType = UNSET
    cache: model.CacheLevel


def from_entry(entry: Entry, *, installed: bool) -> Package:
    """Translate an entry of an index."""
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
    """Translate an installed package and what it brings."""
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
    """Translate what an installation left."""
    return Installation(package=entry.language, version=entry.version, installed=[each.id for each in installed])


def from_progress(progress: PackageProgress) -> Progress:
    """Translate a word about an installation."""
    return Progress(package=progress.package, step=progress.step, done=progress.done, total=progress.total, words=progress.words)


def from_result(result: model.Result, package: Installed, texts: Mapping[StageName, Texts]) -> Execution:
    """Translate a result. When compiling failed, `run` repeats it, as in version 2. texts: as there."""
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
    """Translate a failure into a status and a body. Unlike in version 2 each kind has its own status: a conflict is a 409."""
    return status_of(error), Failure(wire.words_of(error), error.code, error.hint)


def from_late_error(error: FireboxError) -> StreamedFailure:
    """Translate a failure of an installation whose stream has begun."""
    status, failure = from_error(error)
    return StreamedFailure(status, failure.message, failure.code, failure.hint)
