"""JSON at every door: excessive documents are rejected before parsing, and a byte order mark is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds import socketio_packets
from firebox.doors.http import json_body
from firebox.doors.http.json_body import decode, parse
from firebox.doors.http.json_size import MAX_LITERAL_BYTES, MAX_VALUES, Meter, check, check_in_turns
from firebox.doors.http.requests import read_json_body
from firebox.doors.native import wire
from firebox.doors.piston import request
from firebox.doors.piston.request import read_document
from firebox.service.validation import check_words
from tests.support.server import RunningServer, server

__all__ = ["server"]

MARK = "\ufeff"
JSON = {"Content-Type": "application/json"}
BROKEN = b" and this is no JSON"
"""At the end of a text that holds too much: a parser would complain about this."""

COUNTED: list[Any] = [
    [],
    {},
    "a",
    [1, [2, {"a": 3}], []],
    {"a": '",[{', "b\\": ["\\", '\\"', "\\\\,"], '","': 'x\\\\"[', "c": [[], {}]},
    ["\\" * 7 + '"' + "\\" * 6, ",,,[[[{{{" * 50],
    {"emoji 😀": ["é,[{", "\u2028"]},
]


def values_in(document: Any) -> int:
    """Count the values in a document, including itself."""
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return 1 + sum(values_in(each) for each in inner)


@pytest.mark.parametrize("document", COUNTED, ids=range(len(COUNTED)))
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_values_are_counted_whatever_strings_hold_and_wherever_it_is_cut(document: Any, size: int, indent: int | None) -> None:
    text = json.dumps(document, indent=indent, ensure_ascii=size > 2).encode()
    meter = Meter()
    for start in range(0, len(text), size):
        meter.feed(text[start : start + size])
    # An empty array or object counts like one with a value.
    assert values_in(document) <= meter.values <= values_in(document) + json.dumps(document).count("[]") + text.count(b"{}")


TOO_MUCH = {
    "empty strings": b'{"args":[' + b'"",' * MAX_VALUES + b'""]}',
    "variables": b'{"env":{' + b",".join(b'"%x":""' % number for number in range(MAX_VALUES)) + b"}}",
    "files": b'{"files":[' + b'{"content":""},' * MAX_VALUES + b"0]}",
    "levels": b"[" * MAX_VALUES,
    "unknown keys": b"{" + b",".join(b'"%x":0' % number for number in range(MAX_VALUES)) + b"}",
    "a number": b"9" * (MAX_LITERAL_BYTES + 1),
    "a fraction": b"0." + b"9" * MAX_LITERAL_BYTES,
}


@pytest.mark.parametrize("what", TOO_MUCH)
async def test_a_text_that_holds_too_much_is_refused_before_it_is_parsed(what: str) -> None:
    for body in (TOO_MUCH[what] + BROKEN, BROKEN + TOO_MUCH[what]):
        with pytest.raises(InvalidRequest, match="the JSON holds more than"):
            check(body)
        with pytest.raises(InvalidRequest, match="the JSON holds more than"):
            await check_in_turns(body.decode())


async def test_a_body_that_holds_too_much_is_refused_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    feed = Meter.feed

    def count(meter: Meter, piece: bytes) -> None:
        nonlocal counted
        counted += len(piece)
        feed(meter, piece)

    monkeypatch.setattr(Meter, "feed", count)

    async def receive() -> Any:
        parts.append(b"[0," * 1000)
        return {"type": "http.request", "body": parts[-1], "more_body": len(parts) < 200}

    parts: list[bytes] = []
    with pytest.raises(InvalidRequest, match="the JSON holds more than"):
        await read_json_body(receive, {}, 1 << 20)
    assert counted <= 2 * MAX_VALUES
    assert len(parts) == 200  # the rest was taken, so that the answer reaches its sender


async def test_a_program_full_of_brackets_is_none_too_large() -> None:
    body = json.dumps({"language": "bash", "code": '[[{"a,b"}, \\], ' * 100_000}).encode()
    assert decode(check(body), wire.RunRequest) == decode(await check_in_turns(body), wire.RunRequest)


def test_five_thousand_files_are_none_too_many() -> None:
    files = [{"name": f"{number}", "content": "", "encoding": "utf8"} for number in range(5000)]
    body = check(json.dumps({"language": "bash", "version": "*", "files": files}).encode())
    assert len(wire.to_job(decode(body, wire.RunRequest)).files) == 5000
    assert len(read_document(body)["files"]) == 5000


def test_too_many_files_and_arguments_are_rejected_unread() -> None:
    # None of them is what it should be: that is not what the client is told.
    with pytest.raises(InvalidRequest, match="5001 files, at most 5000 are allowed"):
        wire.to_job(wire.RunRequest("bash", files=[wire.FileRequest("\ud800")] * 5001))
    with pytest.raises(InvalidRequest, match="5001 files, at most 5000 are allowed"):
        request._check_entries([0] * 5001)
    with pytest.raises(InvalidRequest, match="10001 arguments, at most 10000 are allowed"):
        request._read_words({"args": [0] * 10_001}, "args")
    with pytest.raises(InvalidRequest, match="10001 arguments, at most 10000 are allowed"):
        check_words(["\0"] * 10_001, {}, "")
    with pytest.raises(InvalidRequest, match="10001 variables, at most 10000 are allowed"):
        check_words([], {f"={number}": "" for number in range(10_001)}, "")


def deep(levels: int) -> bytes:
    """A document with a duplicate key near its root, and long paths to a wide end: the search for the first must not build the
    others.
    """
    key = b'"%s":' % (b"b" * 64)
    return b'{"a":{"x":1,"x":2},' + (key + b"{") * (levels - 1) + key + b"[" + b"0," * 20_000 + b"0]" + b"}" * levels


def test_a_repeated_key_is_found_without_writing_down_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    joined = 0
    join = json_body._join

    def count(path: str, key: str) -> str:
        nonlocal joined
        joined += 1
        return join(path, key)

    monkeypatch.setattr(json_body, "_join", count)
    with pytest.raises(InvalidRequest, match="duplicate key 'x'") as refusal:
        parse(check(deep(900)))
    assert refusal.value.where == "a.x"
    assert joined <= 4


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a":1,"a":2}', "a"),
        ('[{"b":[[],[{"c":1,"d":2,"d":3}]]}]', "[0].b[1][0].d"),
        ('{"a":{"x":1,"x":2},"a":3}', "a"),
        ('{"b":[{"x":1,"x":2}],"a":{"y":1,"y":2}}', "a.y"),
        ('{"' + "k" * 100 + '":{"' * 200 + 'x":1,"x":2' + "}" * 201, ""),
    ],
)
def test_a_duplicate_key_is_reported_with_its_path(text: str, where: str) -> None:
    with pytest.raises(InvalidRequest, match="duplicate key") as refusal:
        parse(check(text))
    assert refusal.value.where.startswith(where)
    assert len(refusal.value.where) < 600


def test_client_texts_in_errors_are_shortened() -> None:
    body = {"language": "bash", "files": [{"content": "", "encoding": "x" * 1_000_000}]}
    with pytest.raises(InvalidRequest) as refusal:
        decode(check(json.dumps(body)), wire.RunRequest)
    assert len(refusal.value.message) < 2000


HTTP_DOORS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/api/v1/runs", {"language": "bash", "code": "true"}),
    "piston": ("/api/v2/execute", {"language": "bash", "version": "*", "files": [{"content": "true"}]}),
    "version 3": ("/api/v3/packages/a/1.0.0/execute", {"code": "true"}),
    "glot": ("/languages/bash/latest", {"files": [{"name": "main.sh", "content": "true"}]}),
    "runner": ("/run", {"language": "go", "code": ""}),
}


@pytest.mark.parametrize("door", HTTP_DOORS)
def test_every_door_refuses_what_holds_too_much(server: RunningServer, door: str) -> None:
    path, _ = HTTP_DOORS[door]
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for body in (TOO_MUCH["empty strings"], TOO_MUCH["a number"], deep(900)):
            answer = client.post(path, content=body + BROKEN, headers=JSON)
            assert answer.status_code == 400
            assert "holds more than" in answer.text or body.startswith(b'{"a"')
            assert len(answer.content) < 2000


@pytest.mark.parametrize("door", HTTP_DOORS)
def test_every_door_takes_a_byte_order_mark(server: RunningServer, door: str) -> None:
    path, body = HTTP_DOORS[door]
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        plain, marked = (client.post(path, content=(mark + json.dumps(body)).encode(), headers=JSON) for mark in ("", MARK))
        assert plain.status_code == marked.status_code
        assert plain.status_code == (404 if door == "version 3" else 200), plain.text


SOCKETS: dict[str, tuple[str, dict[str, Any], str]] = {
    "native": ("/api/v1/runs/live", {"type": "start", "language": "bash", "code": "true"}, "started"),
    "piston": (
        "/api/v2/connect",
        {"type": "init", "language": "bash", "version": "*", "files": [{"content": "true"}]},
        "runtime",
    ),
}
SOCKETS["piston, binary"] = SOCKETS["piston"]


@pytest.mark.parametrize("door", SOCKETS)
def test_messages_are_read_like_bodies(server: RunningServer, door: str) -> None:
    path, message, answer = SOCKETS[door]
    kind: Callable[[str], str | bytes] = str.encode if door == "piston, binary" else str
    with connect(server.url.replace("http", "ws") + path, proxy=None) as socket:
        socket.send(kind(MARK + json.dumps(message)))
        assert json.loads(socket.recv(timeout=60))["type"] == answer
    with connect(server.url.replace("http", "ws") + path, proxy=None) as socket:
        socket.send(kind(TOO_MUCH["empty strings"].decode()))
        assert "holds more than" in str(socket.recv(timeout=60))


def test_packets_are_counted_before_they_are_parsed() -> None:
    with pytest.raises(InvalidRequest, match="the JSON holds more than"):
        socketio_packets.decode("2" + '["run",' + "0," * MAX_VALUES + BROKEN.decode())
