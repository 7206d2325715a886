"""What is remembered of a repository: its last good index, and what must never change afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct, field, structs

from firebox.domain.errors import NotTrusted, RepositoryError
from firebox.packages.entry import Entry
from firebox.packages.repository.index import Index
from firebox.packages.repository.sources import Source

MOST_SEEN = 500_000
"""Versions that are remembered; a repository that invents more is refused."""
MOST_TROUBLES = 100
_STATE = "state.json"
_ACCEPT = "to accept it all the same, remove the repository's folder in packages/repositories of the data folder"


class State(Struct, frozen=True, kw_only=True):
    """What is remembered. An instance never changes; `after` gives the next one."""

    location: str = ""
    """Where the index was."""
    digest: str = ""
    """SHA-256 of the index; it is kept beside under this name. "" before the first one."""
    synced_at: datetime | None = None
    serial: int | None = None
    """The highest of a signed index."""
    signed_at: datetime | None = None
    """When the newest signature was made; None as long as none was ever checked."""
    seen: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Language, version and architecture, with spaces between -> checksums."""

    def refuse_replay(self, repository: str, serial: int | None, signed_at: datetime | None) -> None:
        """Refuse an index that is older than one that was seen, or has lost its signature. Raises: NotTrusted."""
        hint = f"if the repository really began anew, remove its folder in packages/repositories of the data folder: {repository}"
        if self.signed_at is not None and signed_at is None:
            raise NotTrusted(f"the index of repository {repository} was signed before and is not any more", hint=hint)
        if self.serial is not None and signed_at is not None and (serial is None or serial < self.serial):
            played = f"has serial {serial}" if serial is not None else "has no serial"
            raise NotTrusted(
                f"the index of repository {repository} {played}, and {self.serial} was seen before: "
                "it is an old one played again",
                hint=hint,
            )
        if self.signed_at is not None and signed_at is not None and serial == self.serial and signed_at < self.signed_at:
            raise NotTrusted(
                f"the index of repository {repository} was signed at {signed_at:%Y-%m-%d %H:%M:%S}, "
                f"and one of {self.signed_at:%Y-%m-%d %H:%M:%S} was seen before: it is an old one played again",
                hint=hint,
            )

    def without_changed(self, index: Index) -> Index:
        """Leave out every version that is announced with another content than was seen, with words about it."""
        kept: list[Entry] = []
        troubles: list[str] = []
        for entry in index.entries:
            before = self.seen.get(_key(entry))
            if before is None or same_content(before, entry.checksums):
                kept.append(entry)
            elif len(troubles) < MOST_TROUBLES:
                troubles.append(f"{entry.name} is left out: it is not what it was, and a version never changes; {_ACCEPT}")
        return structs.replace(index, entries=kept, troubles=(*index.troubles, *troubles)) if troubles else index

    def after(
        self,
        source: Source,
        content: bytes,
        entries: Iterable[Entry],
        serial: int | None,
        signed_at: datetime | None,
    ) -> Self:
        """What is remembered once an index was accepted. Raises: RepositoryError when it grows beyond all measure."""
        seen = dict(self.seen)
        for entry in entries:
            seen[_key(entry)] = seen.get(_key(entry), {}) | entry.checksums
        if len(seen) > MOST_SEEN:
            raise RepositoryError(source.name, f"it has announced more than {MOST_SEEN} versions over time")
        signed = signed_at is not None
        return structs.replace(
            self,
            location=source.location,
            digest=hashlib.sha256(content).hexdigest(),
            synced_at=datetime.now(UTC),
            serial=serial if signed else self.serial,
            signed_at=signed_at if signed else self.signed_at,
            seen=seen,
        )


class StateFolder:
    """The folder of one repository below `packages/repositories`."""

    def __init__(self, repository: str, folder: Path) -> None:
        self._repository = repository
        self._folder = folder

    def state(self) -> State:
        """Read what is remembered. Raises: RepositoryError when it is damaged: to begin anew is for the operator to decide."""
        try:
            return msgspec.json.decode((self._folder / _STATE).read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.DecodeError) as error:
            raise RepositoryError(
                self._repository, f"what is remembered of it cannot be read: {error}", hint=f"look at {self._folder / _STATE}"
            ) from None

    def content(self, state: State) -> tuple[bytes, bytes] | None:
        """Read the index that is remembered and its signature (b"" when it has none); None when it is not there, whole."""
        try:
            content = (self._folder / f"{state.digest}.index").read_bytes()
            signature = (self._folder / f"{state.digest}.asc").read_bytes() if state.signed_at is not None else b""
        except OSError:
            return None
        return (content, signature) if hashlib.sha256(content).hexdigest() == state.digest else None

    def store(self, state: State, *, content: bytes, signature: bytes) -> None:
        """Keep an index. The state is written last: until then the one before counts. Raises: OSError."""
        names = {f"{state.digest}.index": content, f"{state.digest}.asc": signature}
        for name, written in names.items():
            _write(self._folder / name, written)
        _write(self._folder / _STATE, msgspec.json.encode(state))
        for path in self._folder.iterdir():
            if path.name not in {*names, _STATE, "lock"}:
                path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Let nobody else change it meanwhile, in this process or another one."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def same_content(one: dict[str, str], other: dict[str, str]) -> bool:
    """Say whether two sets of checksums can be of one file: those that both have are equal, and there is one, or one is empty."""
    common = one.keys() & other.keys()
    return all(one[name] == other[name] for name in common) and bool(common or not one)


def _key(entry: Entry) -> str:
    return f"{entry.language.lower()} {entry.version} {entry.architecture}".rstrip()


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
