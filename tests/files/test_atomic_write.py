"""Atomic writes and checksums of files."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from firebox.files.atomic_write import write_atomic
from firebox.files.checksum import file_checksum


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_replaces_a_file_with_the_given_mode(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")
    before = os.umask(0o077)
    try:
        write_atomic(file, b"new", mode=mode)
    finally:
        os.umask(before)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_keeps_the_old_content_and_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
def test_checksums_are_lower_case_hexadecimal(algorithm: str, tmp_path: Path) -> None:
    file = tmp_path / "content"
    file.write_bytes(b"x" * 300_000)
    assert file_checksum(file, algorithm) == hashlib.new(algorithm, b"x" * 300_000).hexdigest()
