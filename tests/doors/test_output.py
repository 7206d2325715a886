"""Large output and artifacts: encoded in pieces, with the same response as if encoded at once."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import pytest

from firebox.domain.errors import InvalidRequest
from firebox.domain.model import Chunk, File, Result, StageResult, StreamName, Timings
from firebox.doors.http.json_size import check
from firebox.doors.http.output import LARGE_BYTES, SENT_BYTES, Pieces, Texts, is_large, plain_texts
from firebox.doors.native import wire
from firebox.doors.piston import wire as piston
from firebox.doors.runner import wire as runner
from firebox.doors.runner.proto.runner_pb2 import CodeRequest, CodeResponse, IdRequest
from tests.support.results import result_with, stage_with
from tests.support.server import RunningServer, server
from tests.support.waiting import wait_until

__all__ = ["server"]

EURO = "€".encode()


def made(chunks: Sequence[tuple[StreamName, bytes]], artifacts: tuple[File, ...] = ()) -> Result:
    stage = stage_with(chunks=tuple(Chunk(stream, data) for stream, data in chunks))
    return result_with(run=stage, timings=Timings(queue_ms=0, prepare_ms=0, compile_ms=0, run_ms=1), artifacts=artifacts)


OUTPUT: dict[str, list[tuple[StreamName, bytes]]] = {
    "control characters": [("stdout", b"\0" * 200_000), ("stderr", b"\x1b" * 100)],
    "nothing valid": [("stderr", b"\xff" * 200_000)],
    "quotes": [("stdout", b'"\\' * 100_000)],
    "characters that are cut": [
        ("stdout", b"x" + EURO * 60_000),
        ("stderr", EURO[:2]),
        ("stdout", EURO[:1]),
        ("stderr", EURO[2:]),
    ],
    "both streams by turns": [("stdout", b"a\xe2"), ("stderr", EURO)] * 20_000,
}


class Whole(Pieces):
    """Encodes nothing in pieces."""

    async def texts(self, stage: StageResult) -> Texts:
        return plain_texts(stage)

    async def base64(self, data: bytes) -> str:
        return base64.b64encode(data).decode()


@pytest.mark.parametrize("what", OUTPUT)
async def test_an_answer_in_pieces_is_the_one_that_is_written_at_once(what: str) -> None:
    files = (File("small", b"\0\1"), File("large", bytes(range(256)) * 1000), File('"', b"x" * 100_001))
    result = made(OUTPUT[what], files)
    assert result.run is not None
    assert is_large(result.run)
    pieces = Pieces()
    parts = pieces.put_into(msgspec.json.encode(await wire.from_result(result, pieces, exact=True)))
    assert b"".join(parts) == msgspec.json.encode(await wire.from_result(result, Whole(), exact=True))
    assert max(map(len, parts)) <= 6 * LARGE_BYTES
    pieces = Pieces()
    skeleton = piston.encode(piston.from_result(result, await pieces.texts_of(result)))
    assert b"".join(pieces.put_into(skeleton)) == piston.encode(piston.from_result(result, {}))


async def test_other_tasks_run_between_pieces() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    result = made([("stdout", b"\0" * (64 * LARGE_BYTES))], (File("a", b"x" * (64 * LARGE_BYTES)),))
    pieces = Pieces()
    skeleton = msgspec.json.encode(await wire.from_result(result, pieces, exact=False))
    assert turns >= 128
    answer: Any = pieces.answer(skeleton)
    turns = 0
    sent = [part async for part in answer.iterator]
    assert turns >= len(sent) - 2
    assert max(map(len, sent)) <= SENT_BYTES + 6 * LARGE_BYTES
    assert sum(map(len, sent)) == int(answer.headers["content-length"])
    counting.cancel()


async def test_long_texts_of_the_gateway_are_in_pieces_too() -> None:
    message = CodeResponse(code="\0€" * 50_000, output='"' * 100_000, error="")
    pieces = Pieces()
    body = b"".join(pieces.put_into(await runner.to_json(message, pieces)))
    assert msgspec.json.decode(body) == {"code": message.code, "output": message.output, "error": ""}


@pytest.mark.parametrize("size", [10, LARGE_BYTES + 1])
def test_texts_of_the_gateway_are_read_alike_whatever_their_size(size: int) -> None:
    fields = {"code": "\0€" * size, "language": "go", "unknown": "x" * size}
    message = runner.from_json(check(json.dumps(fields)), CodeRequest)
    assert (message.code, message.language) == (fields["code"], "go")
    with pytest.raises(InvalidRequest, match="surrogate"):
        runner.from_json(check(json.dumps({"code": "x" * size + "\ud800"})), CodeRequest)
    with pytest.raises(InvalidRequest) as refusal:
        runner.from_json(check(json.dumps({"id": "x" * size})), IdRequest)
    assert len(refusal.value.message) < 2000


def test_a_long_status_message_is_shortened_without_encoding_all_of_it() -> None:
    assert runner.cut("é" * 10_000_000) == runner.cut("é" * 10_000)


def test_large_output_arrives_whole(server: RunningServer) -> None:
    code = "head -c 400000 /dev/zero; head -c 100000 /dev/zero | tr '\\0' '\\377' >&2; head -c 200000 /dev/zero > a"
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        answer = client.post("/api/v1/runs", json={"language": "bash", "code": code, "artifacts": ["a"], "base64": True})
        result = answer.json()
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert result["run"]["stdout"] == "\0" * 400_000
        assert result["run"]["stderr"] == "\ufffd" * 100_000
        assert base64.b64decode(result["run"]["stderr_base64"]) == b"\xff" * 100_000
        assert base64.b64decode(result["artifacts"][0]["content"]) == b"\0" * 200_000
        body = {"language": "bash", "version": "*", "files": [{"content": code}]}
        assert client.post("/api/v2/execute", json=body).json()["run"]["stdout"] == "\0" * 400_000
        submitted = client.post(
            "/api/v1/runs", json={"language": "bash", "code": code}, headers={"Prefer": "respond-async"}
        ).json()
        path = f"/api/v1/runs/{submitted['id']}"
        wait_until(lambda: client.get(path).json()["state"] == "ended")
        assert client.get(path).json()["result"]["run"]["stdout"] == "\0" * 400_000
        assert client.delete(path).json()["result"]["run"]["stdout"] == "\0" * 400_000
