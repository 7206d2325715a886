"""Cache of tool versions, valid as long as the tools' files do not change."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

_FORMAT = 1


class _Content(msgspec.Struct):
    """The file. tools: executable and version by key; "" and a message for a shim without a target."""

    format: int = _FORMAT
    tools: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict[str, tuple[str, str]])


class DetectionCache:
    """A JSON file. A missing, damaged or read-only one is no error: it only saves time."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, tuple[str, str]] = {}
        self._used: dict[str, tuple[str, str]] = {}
        if file is not None:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                content = msgspec.json.decode(file.read_bytes(), type=_Content)
                self._known = content.tools if content.format == _FORMAT else {}

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
                file.write(msgspec.json.format(msgspec.json.encode(_Content(tools=tools))))
            Path(name).replace(self._file)


def key_of(fingerprint: str, program: Path) -> str:
    """Return the key of a program's file in its current state, for one definition. Raises: OSError."""
    real = program.resolve()
    status = real.stat()
    return f"{fingerprint}:{real}:{status.st_mtime_ns}:{status.st_size}"
