"""The messages are one declaration in two languages, and the launcher refuses what is none."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from firebox.sandbox import protocol
from firebox.sandbox.launcher_start import StartedLauncher, start_launcher
from firebox.sandbox.plans import Plans
from firebox.sandbox.protocol import Kind, Phase
from scripts.write_protocol import HEADER, protocol_header


def test_the_header_is_written_from_the_declarations() -> None:
    assert HEADER.read_text(encoding="utf-8") == protocol_header(), "run `make docs`"


@pytest.mark.parametrize("structure", protocol.STRUCTURES, ids=lambda each: each.__name__)
def test_fields_are_naturally_aligned_without_padding(structure: type[tuple[int, ...]]) -> None:
    """So that C sees the same layout without packing."""
    formats = protocol.layout(structure).format
    native = struct.Struct("@" + formats.lstrip("<"))
    assert native.size == protocol.layout(structure).size
    assert native.size % 4 == 0


def test_a_string_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        protocol.Text(["a\0b"])


def test_a_long_message_travels_in_a_memfd() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.send(ours, b"x" * (protocol.MESSAGE_BYTES + 1))
        data, (memory,) = protocol.receive(theirs)
        long = protocol.unpack(protocol.LongMessage, data)
        assert (long.kind, long.bytes) == (Kind.LONG, protocol.MESSAGE_BYTES + 1)
        assert os.pread(memory, long.bytes + 1, 0) == b"x" * long.bytes
        os.close(memory)
        with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
            protocol.send(ours, bytes(protocol.LONG_MESSAGE_BYTES + 1))


def answer_to(message: bytes) -> protocol.Failed | None:
    """What a launcher that is not configured says to a message; None: it ends."""
    launcher: StartedLauncher = start_launcher()
    try:
        protocol.send(launcher.link, message)
        data, _descriptors = protocol.receive(launcher.link)
        return protocol.unpack_with_text(protocol.Failed, data)[0] if data else None
    finally:
        launcher.end()


def test_another_version_is_refused() -> None:
    launcher = start_launcher()
    plans = Plans(launcher.pid, uid_base=210_000, hooks={})
    message, descriptors = plans.configuration()
    plans.forget_lock()
    launcher.end()
    assert descriptors == () or os.geteuid() == 0
    other = message[:4] + (protocol.VERSION + 1).to_bytes(4, "little") + message[8:]
    failed = answer_to(other)
    assert failed is not None
    assert (failed.phase, failed.error) == (Phase.MESSAGE, errno.EPROTO)


NONSENSE = {
    "text": b"hello",
    "zeros": bytes(100),
    "another kind": protocol.pack(protocol.Kill(Kind.KILL, 1)),
    "counts without anything": protocol.pack(
        protocol.Configure(Kind.CONFIGURE, protocol.VERSION, 0, 1, 1, 9, 0, 1 << 31, 1 << 31, 1 << 31, 1 << 31, 1 << 31)
    ),
    "groups without paths": protocol.pack(protocol.Configure(Kind.CONFIGURE, protocol.VERSION, 0, 1, 1, 4, 0, 0, 0, 0, 0, 0)),
    "long without a memfd": protocol.pack(protocol.LongMessage(Kind.LONG, 0, 100)),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_instead_of_settings_ends_the_launcher(what: str) -> None:
    failed = answer_to(NONSENSE[what])
    assert failed is None or failed.error
