"""Persistent state of a repository: its last valid index, and the history that detects replays and changed versions."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Self

import msgspec
from msgspec import Struct, field, structs

from firebox.domain.errors import NotTrusted, RepositoryError
from firebox.files.atomic_write import write_atomic
from firebox.packages.entry import Entry
from firebox.packages.file_locks import lock_file
from firebox.packages.repository.index import Index
from firebox.packages.repository.sources import Source, packages_folder
from firebox.settings.settings import Settings

MAX_SEEN_VERSIONS = 500_000
"""Maximum recorded versions; a repository that exceeds it is rejected."""
MAX_WARNINGS = 100
_STATE = "state.json"
_ACCEPT_HINT = "to accept the change, delete the repository's folder in packages/repositories of the data folder"


class IndexFile(Struct, frozen=True, kw_only=True):
    """An unverified index and its signature, b"" if unsigned."""

    content: bytes
    signature: bytes


class State(Struct, frozen=True, kw_only=True):
    """Recorded state. Immutable; `updated` returns the next state."""

    location: str = ""
    """URL of the index."""
    digest: str = ""
    """SHA-256 of the index, which is stored beside under this name. "" before the first sync."""
    synced_at: datetime | None = None
    serial: int | None = None
    """Highest serial of a signed index."""
    signed_at: datetime | None = None
    """Time of the newest signature; None if none was ever verified."""
    seen: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """"language version architecture" -> checksums."""

    def check_replay(self, repository: str, serial: int | None, signed_at: datetime | None) -> None:
        """Reject an index that is older than a recorded one or has lost its signature. Raises: NotTrusted."""
        if signed_at is None:
            if self.signed_at is None:
                return
            problem = "was signed before but is now unsigned"
        elif self.serial is not None and (serial is None or serial < self.serial):
            found = f"has serial {serial}" if serial is not None else "has no serial"
            problem = f"{found}, but {self.serial} was seen before: possible replay of an old index"
        elif self.signed_at is not None and serial == self.serial and signed_at < self.signed_at:
            problem = (
                f"was signed at {signed_at:%Y-%m-%d %H:%M:%S}, but one signed at {self.signed_at:%Y-%m-%d %H:%M:%S} was seen "
                "before: possible replay of an old index"
            )
        else:
            return
        hint = f"if the repository was really reset, delete its folder in packages/repositories of the data folder: {repository}"
        raise NotTrusted(f"the index of repository {repository} {problem}", hint=hint)

    def without_changed_versions(self, index: Index) -> Index:
        """Drop every version whose content differs from the recorded one, with a warning for each."""
        kept: list[Entry] = []
        warnings: list[str] = []
        for entry in index.entries:
            before = self.seen.get(_key(entry))
            if before is None or is_same_content(before, entry.checksums):
                kept.append(entry)
            elif len(warnings) < MAX_WARNINGS:
                warnings.append(f"{entry.name} is skipped: its content changed, but published versions are final; {_ACCEPT_HINT}")
        return structs.replace(index, entries=kept, warnings=(*index.warnings, *warnings)) if warnings else index

    def updated(self, source: Source, content: bytes, index: Index, signed_at: datetime | None) -> Self:
        """Return the state after an index was accepted. Raises: RepositoryError if too many versions accumulate."""
        seen = dict(self.seen)
        for entry in index.entries:
            seen[_key(entry)] = seen.get(_key(entry), {}) | entry.checksums
        if len(seen) > MAX_SEEN_VERSIONS:
            raise RepositoryError(source.name, f"it has announced more than {MAX_SEEN_VERSIONS} versions over time")
        signed = signed_at is not None
        return structs.replace(
            self,
            location=source.location,
            digest=hashlib.sha256(content).hexdigest(),
            synced_at=datetime.now(UTC),
            serial=index.serial if signed else self.serial,
            signed_at=signed_at if signed else self.signed_at,
            seen=seen,
        )


class StateFolder:
    """The state folder of one repository, below `packages/repositories`."""

    def __init__(self, settings: Settings, repository: str) -> None:
        self._repository = repository
        self._folder = packages_folder(settings) / "repositories" / repository
        self.state_file = self._folder / _STATE

    def state(self) -> State:
        """Read the state. Raises: RepositoryError if it is corrupt: resetting it is the operator's decision."""
        try:
            return msgspec.json.decode(self.state_file.read_bytes(), type=State)
        except FileNotFoundError:
            return State()
        except (OSError, msgspec.DecodeError) as error:
            hint = f"look at {self.state_file}"
            raise RepositoryError(self._repository, f"its recorded state cannot be read: {error}", hint=hint) from None

    def index_file(self, state: State) -> IndexFile | None:
        """Read the stored index; None if it is missing or incomplete."""
        try:
            content = (self._folder / f"{state.digest}.index").read_bytes()
            signature = (self._folder / f"{state.digest}.asc").read_bytes() if state.signed_at is not None else b""
        except OSError:
            return None
        found = IndexFile(content=content, signature=signature)
        return found if hashlib.sha256(content).hexdigest() == state.digest else None

    def store(self, state: State, file: IndexFile) -> None:
        """Store an accepted index. The state file is written last and acts as the commit. Raises: OSError."""
        signature = file.signature if state.signed_at is not None else b""
        names = {f"{state.digest}.index": file.content, f"{state.digest}.asc": signature}
        for name, written in names.items():
            write_atomic(self._folder / name, written)
        write_atomic(self.state_file, msgspec.json.encode(state))
        for path in self._folder.iterdir():
            if path.name not in {*names, _STATE, "lock"}:
                path.unlink(missing_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Exclude every other writer, in this process and others."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        return lock_file(self._folder / "lock")


def is_same_content(one: dict[str, str], other: dict[str, str]) -> bool:
    """Check whether two sets of checksums can describe the same file: the common ones are equal, and there is a common one."""
    common = one.keys() & other.keys()
    return all(one[name] == other[name] for name in common) and bool(common or not one)


def _key(entry: Entry) -> str:
    return f"{entry.language.lower()} {entry.version} {entry.architecture}".rstrip()
