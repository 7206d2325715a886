"""The messages have one declaration for two languages, and the launcher rejects malformed ones."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest

from firebox.sandbox.launcher.launcher_start import StartedLauncher, start_launcher
from firebox.sandbox.plan.plans import Plans
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, Phase
from scripts.write_protocol import HEADER, declared, protocol_header


def test_the_header_is_up_to_date() -> None:
    assert HEADER.read_text(encoding="utf-8") == protocol_header(), "run `make docs`"


@pytest.mark.parametrize("structure", declared(tuple), ids=lambda each: each.__name__)
def test_fields_are_naturally_aligned_without_padding(structure: type[tuple[int, ...]]) -> None:
    """So C has the same layout without packing."""
    formats = messages.layout(structure).format
    native = struct.Struct("@" + formats.lstrip("<"))
    assert native.size == messages.layout(structure).size
    assert native.size % 4 == 0


def test_a_string_with_a_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="null"):
        messages.Text(["a\0b"])


def test_a_long_message_travels_in_a_memfd() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        messages.send(ours, b"x" * (messages.MESSAGE_BYTES + 1))
        data, (memory,) = messages.receive(theirs)
        long = messages.unpack(messages.LongMessage, data)
        assert (long.kind, long.bytes) == (Kind.LONG, messages.MESSAGE_BYTES + 1)
        assert os.pread(memory, long.bytes + 1, 0) == b"x" * long.bytes
        os.close(memory)
        with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
            messages.send(ours, bytes(messages.LONG_MESSAGE_BYTES + 1))


def answer_to(message: bytes) -> messages.Failed | None:
    """Return the reply of an unconfigured launcher to a message; None: it exits."""
    launcher: StartedLauncher = start_launcher()
    try:
        messages.send(launcher.link, message)
        data, _descriptors = messages.receive(launcher.link)
        return messages.unpack_with_text(messages.Failed, data)[0] if data else None
    finally:
        launcher.end()


def test_a_different_version_is_rejected() -> None:
    launcher = start_launcher()
    plans = Plans(launcher.pid, uid_base=210_000, hooks={})
    message, descriptors = plans.configuration()
    plans.forget_lock()
    launcher.end()
    assert descriptors == () or os.geteuid() == 0
    other = message[:4] + (messages.VERSION + 1).to_bytes(4, "little") + message[8:]
    failed = answer_to(other)
    assert failed is not None
    assert (failed.phase, failed.error) == (Phase.MESSAGE, errno.EPROTO)


NONSENSE = {
    "text": b"hello",
    "zeros": bytes(100),
    "another kind": messages.pack(messages.Kill(Kind.KILL, 1)),
    "counts without anything": messages.pack(
        messages.Configure(Kind.CONFIGURE, messages.VERSION, 0, 1, 1, 9, 0, 1 << 31, 1 << 31, 1 << 31, 1 << 31, 1 << 31)
    ),
    "groups without paths": messages.pack(messages.Configure(Kind.CONFIGURE, messages.VERSION, 0, 1, 1, 4, 0, 0, 0, 0, 0, 0)),
    "long without a memfd": messages.pack(messages.LongMessage(Kind.LONG, 0, 100)),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_malformed_settings_end_the_launcher(what: str) -> None:
    failed = answer_to(NONSENSE[what])
    assert failed is None or failed.error
