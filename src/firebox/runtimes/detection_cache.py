"""What tools said of their version, remembered for as long as their files stay the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

_FORMAT = 1


class _Content(msgspec.Struct):
    """The file. tools: key -> executable and version; "" and words for a shim that stands for nothing."""

    format: int = _FORMAT
    tools: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict[str, tuple[str, str]])


class DetectionCache:
    """A JSON file of what is known. One that is missing, damaged or read-only is no error: it only saves time."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, tuple[str, str]] = {}
        self._used: dict[str, tuple[str, str]] = {}
        if file is not None:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                content = msgspec.json.decode(file.read_bytes(), type=_Content)
                self._known = content.tools if content.format == _FORMAT else {}

    def get(self, key: str) -> tuple[str, str] | None:
        """Get executable and version."""
        known = self._known.get(key)
        if known is not None:
            self._used[key] = known
        return known

    def put(self, key: str, *, executable: str, version: str) -> None:
        """Remember a program. executable: "" for a shim of nothing; version is then why."""
        self._used[key] = (executable, version)

    def save(self, *, complete: bool) -> None:
        """Write the file if anything changed. complete: everything was asked for, so what was not used is forgotten."""
        tools = self._used if complete else {**self._known, **self._used}
        if self._file is None or tools == self._known:
            return
        import tempfile  # mostly nothing has changed

        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_Content(tools=tools))))
            Path(name).replace(self._file)


def key_of(fingerprint: str, program: Path) -> str:
    """Name a file in a certain state, as asked about by a certain definition. Raises: OSError."""
    real = program.resolve()
    status = real.stat()
    return f"{fingerprint}:{real}:{status.st_mtime_ns}:{status.st_size}"
