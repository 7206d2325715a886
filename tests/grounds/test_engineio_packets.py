"""Payloads of polling, in both revisions: what is read, what is refused, and what is written."""

from __future__ import annotations

import json
import random

import pytest

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds.engineio_packets import (
    PACKET_CHARACTERS,
    PACKETS_PER_PAYLOAD,
    EnginePacket,
    Revision,
    decode_packet,
    decode_payload,
    encode_payload,
)

HELLO = EnginePacket("4", "hello")
ANY_BINARY = EnginePacket("b")


@pytest.mark.parametrize(
    ("body", "packets"),
    [
        ("4hello", [HELLO]),
        ("4hello\x1e3\x1ebAQID", [HELLO, EnginePacket("3"), ANY_BINARY]),
        ("4😀é", [EnginePacket("4", "😀é")]),
        ("", [EnginePacket("")]),
        ("4a\x1e", [EnginePacket("4", "a"), EnginePacket("")]),
    ],
)
def test_payloads_of_revision_4(body: str, packets: list[EnginePacket]) -> None:
    assert decode_payload(body.encode(), 4) == packets


@pytest.mark.parametrize(
    ("body", "packets"),
    [
        ("6:4hello", [HELLO]),
        ("6:4hello1:26:b4AQID", [HELLO, EnginePacket("2"), ANY_BINARY]),
        ("06:4hello", [HELLO]),
        ("0:", [EnginePacket("")]),
        ("4:43:a3:4:5", [EnginePacket("4", "3:a"), EnginePacket("4", ":5")]),
        # Lengths count UTF-16 code units: an emoji is two.
        ("4:4😀é6:4hello", [EnginePacket("4", "😀é"), HELLO]),
        ("4:4\u20ac\u20ac\u20ac", [EnginePacket("4", "€€€")]),
        # Version 1 sends each byte of UTF-8 as a character, and counts those.
        ("3:4Ã©", [EnginePacket("4", "é")]),
        ("5:4ð\u009f\u0098\u0080", [EnginePacket("4", "😀")]),
        # Version 2 does not; this cannot be from version 1.
        ("3:4éa", [EnginePacket("4", "éa")]),
        ("4:4Ã©€", [EnginePacket("4", "Ã©€")]),
    ],
)
def test_payloads_of_revision_3(body: str, packets: list[EnginePacket]) -> None:
    assert decode_payload(body.encode(), 3) == packets


def test_binary_payloads_of_revision_3() -> None:
    body = bytes([0, 6, 255]) + b"4hello" + bytes([1, 1, 0, 255]) + b"4" + bytes(9) + bytes([0, 3, 255]) + "4é".encode()
    assert decode_payload(body, 3, is_binary=True) == [HELLO, ANY_BINARY, EnginePacket("4", "é")]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "4hello",
        ":4hello",
        "6:4hell",
        "6:4hello1",
        "6:4hello1:",
        "-1:4",
        "+1:4",
        "1e1:4hellohello",
        "1.0:4",
        " 1:4",
        "0x1:4",
        "²:4a",
        "٣:4ab",
        "4:4😀",
        "2:4😀",  # half an emoji
        "99999999:4",
        "9" * 100_000 + ":4",
        "1" * 100_000,
    ],
)
def test_a_malformed_payload_of_revision_3_is_refused(body: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_payload(body.encode(), 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"6:4hello",
        bytes([0]),
        bytes([0, 255]) + b"4",
        bytes([0, 6]),
        bytes([0, 6, 255]) + b"4hell",
        bytes([2, 1, 255]) + b"4",
        bytes([0, 10, 255]) + b"4",
        bytes([0, *[9] * 8, 255]) + b"4",
        bytes([0, *[0] * 100_000, 255]) + b"4",
        bytes([0, 2, 255]) + b"4\xff",
    ],
)
def test_a_malformed_binary_payload_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_payload(body, 3, is_binary=True)


@pytest.mark.parametrize("revision", [3, 4])
def test_bytes_that_are_no_text_are_refused(revision: Revision) -> None:
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        decode_payload(b"2:4\xff", revision)


@pytest.mark.parametrize(
    ("revision", "packet", "between"), [(3, "1:2", ""), (3, "0:", ""), (4, "3", "\x1e"), (4, "", "\x1e")], ids=range(4)
)
def test_the_number_of_packets_is_bounded(revision: Revision, packet: str, between: str) -> None:
    assert len(decode_payload(between.join([packet] * PACKETS_PER_PAYLOAD).encode(), revision)) == PACKETS_PER_PAYLOAD
    for count in (PACKETS_PER_PAYLOAD + 1, 200_000):
        with pytest.raises(InvalidRequest, match="too many packets"):
            decode_payload(between.join([packet] * count).encode(), revision)


@pytest.mark.parametrize(("revision", "between", "prefix"), [(3, "", "1:"), (4, "\x1e", "")])
def test_packets_beyond_the_bound_are_not_read(revision: Revision, between: str, prefix: str) -> None:
    packets = [f"{prefix}2"] * PACKETS_PER_PAYLOAD + [f"{prefix}x"]
    with pytest.raises(InvalidRequest, match="too many packets"):
        decode_payload(between.join(packets).encode(), revision)


def test_the_length_of_a_packet_is_bounded() -> None:
    assert decode_packet("4" * PACKET_CHARACTERS).type == "4"
    for frame in ("4" * (PACKET_CHARACTERS + 1), b"4" * (PACKET_CHARACTERS + 1)):
        with pytest.raises(InvalidRequest, match="too large"):
            decode_packet(frame)


def test_a_payload_is_written_as_it_is_read() -> None:
    packets = ["0" + json.dumps({"sid": "a"}), "40", "3", '42["run",{"stream":"stdout","chunk":"\\u00e9"}]']
    assert encode_payload(packets, 3).startswith(b'13:0{"sid": "a"}2:401:3')
    assert encode_payload(["40", "3"], 4) == b"40\x1e3"
    for revision in (3, 4):
        read = decode_payload(encode_payload(packets, revision), revision)
        assert [packet.type + packet.text for packet in read] == packets


def test_noise_is_read_or_refused() -> None:
    noise = random.Random(7)
    alphabet = b"0123456789:b\x1e\xff\x00\x01\x02\xc3\xa9\xf0\x9f\x98\x80[]{}"
    read = 0
    for _ in range(20_000):
        body = bytes(noise.choices(alphabet, k=noise.randrange(12)))
        for revision, is_binary in ((3, False), (3, True), (4, False)):
            try:
                packets = decode_payload(body, 4 if revision == 4 else 3, is_binary=is_binary)
            except InvalidRequest:
                continue
            read += 1
            assert sum(len(packet.text) for packet in packets) <= len(body)
    assert read > 1000
