"""Packets of Socket.IO: what is read, what is refused, and what is written for clients of either age."""

from __future__ import annotations

import pytest

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds.socketio_packets import (
    SocketPacket,
    decode,
    encode_ack,
    encode_connected,
    encode_event,
    encode_refused,
)
from firebox.doors.grounds.wire import Reply


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", SocketPacket("0", "/", "", None, 0)),
        ('0{"token":"a"}', SocketPacket("0", "/", "", {"token": "a"}, 0)),
        ("0/other", SocketPacket("0", "/other", "", None, 0)),
        ("0/other?token=a,", SocketPacket("0", "/other", "", None, 0)),
        ('0/other,{"a":1}', SocketPacket("0", "/other", "", {"a": 1}, 0)),
        ("1", SocketPacket("1", "/", "", None, 0)),
        ("1/other,", SocketPacket("1", "/other", "", None, 0)),
        ('2["run",{"a":[1]}]', SocketPacket("2", "/", "", ["run", {"a": [1]}], 0)),
        ('2/other,12["run"]', SocketPacket("2", "/other", "12", ["run"], 0)),
        ('212["run"]', SocketPacket("2", "/", "12", ["run"], 0)),
        ('51-["run",{"_placeholder":true}]', SocketPacket("2", "/", "", ["run", {"_placeholder": True}], 1)),
        ("312[1]", SocketPacket("3", "/", "12", None, 0)),
        ('61-12[{"_placeholder":true}]', SocketPacket("6", "/", "12", None, 1)),
    ],
)
def test_packets_are_read(text: str, packet: SocketPacket) -> None:
    assert decode(text) == packet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "x",
        "2",
        "2[]",
        "2{}",
        "2[5]",
        '2["connect"]',
        '2["disconnecting"]',
        '2["run"',
        '2["run"]more',
        '2["run",NaN]',
        "2" + "[" * 100_000,
        '2["run",' + "0," * 100_000 + "0]",
        '21-["run"]',
        '511-["run"]',
        '5999999999-["run"]',
        '2٣["run"]',
        "2" + "9" * 16 + '["run"]',
        "0[]",
        '0"token"',
        "0/é,",
        "0/a\x1eb,",
        "0/" + "a" * 201,
        '4{"message":"a"}',
    ],
    ids=range(25),
)
def test_malformed_packets_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode(text)


def test_each_client_is_answered_in_its_own_protocol() -> None:
    reply = Reply("stdout", 'é"\n')
    assert encode_event(("run", reply), 4) == '42["run",{"stream":"stdout","chunk":"é\\"\\n"}]'
    assert encode_event(("run", reply), 3) == '42["run",{"stream":"stdout","chunk":"\\u00e9\\"\\n"}]'
    assert (encode_connected("a", 4), encode_connected("a", 3)) == ('40{"sid":"a"}', "40")
    assert encode_refused("/", "wé", 4) == '44{"message":"wé"}'
    assert encode_refused("/", "wé", 3) == '44"w\\u00e9"'
    assert encode_refused("/other", "no", 4) == '44/other,{"message":"no"}'
    assert encode_ack("12") == "4312[]"
