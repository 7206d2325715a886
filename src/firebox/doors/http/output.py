"""What is large in an answer, in pieces: output and artifacts of a run.

A control character takes six bytes of JSON, and output is in an answer twice, so 8 MiB of it can become 200 MB. To write that at
once would hold up everybody for seconds. So large texts are written piece by piece, with a turn for others in between, a short
name stands for each in the answer, and the answer is sent with the pieces in the places of the names, never put together.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Response
from litestar.enums import MediaType
from litestar.response import Stream

from firebox.domain import model
from firebox.domain.limits import StageName

LARGE_BYTES = 64 * 1024
"""What is larger is written in pieces of this size."""
BASE64_BYTES = 48 * 1024
"""A multiple of three: pieces of base64 can be put together."""
SENT_BYTES = 256 * 1024
"""What is handed to a connection in one go."""

_encode = msgspec.json.Encoder().encode


class Texts(NamedTuple):
    """What a stage wrote, or names that stand for it. output: both streams in the order in which they arrived."""

    stdout: str
    stderr: str
    output: str


class Pieces:
    """Large texts of one answer. What is not large is given back as it is."""

    def __init__(self) -> None:
        self._named: dict[bytes, list[bytes]] = {}

    async def texts(self, stage: model.StageResult) -> Texts:
        """Decode the output of a stage as `plain_texts` does."""
        make = codecs.getincrementaldecoder("utf-8")
        decoders: dict[model.StreamName, codecs.IncrementalDecoder] = {"stdout": make("replace"), "stderr": make("replace")}
        written: dict[model.StreamName, list[bytes]] = {name: [] for name in decoders}
        in_order: list[bytes] = []
        waiting_bytes = 0
        for stream, data in _cut(stage):
            piece = _content(decoders[stream].decode(data))
            written[stream].append(piece)
            in_order.append(piece)
            waiting_bytes += len(data)
            if waiting_bytes >= LARGE_BYTES:
                waiting_bytes = 0
                await asyncio.sleep(0)
        for name, decoder in decoders.items():
            piece = _content(decoder.decode(b"", final=True))
            written[name].append(piece)
            in_order.append(piece)
        return Texts(self._name(written["stdout"]), self._name(written["stderr"]), self._name(in_order))

    async def texts_of(self, result: model.Result) -> dict[StageName, Texts]:
        """Decode the output of the stages that wrote a lot."""
        stages = [stage for stage in (result.compile, result.run) if stage is not None and is_large(stage)]
        return {stage.stage: await self.texts(stage) for stage in stages}

    async def text(self, text: str) -> str:
        """Write a text."""
        if len(text) <= LARGE_BYTES:
            return text
        pieces: list[bytes] = []
        for start in range(0, len(text), LARGE_BYTES):
            pieces.append(_content(text[start : start + LARGE_BYTES]))
            await asyncio.sleep(0)
        return self._name(pieces)

    async def base64(self, data: bytes) -> str:
        """Write bytes as base64."""
        if len(data) <= LARGE_BYTES:
            return base64.b64encode(data).decode()
        pieces: list[bytes] = []
        for start in range(0, len(data), BASE64_BYTES):
            pieces.append(base64.b64encode(data[start : start + BASE64_BYTES]))
            await asyncio.sleep(0)
        return self._name(pieces)

    def answer(self, body: bytes, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response[Any]:
        """Make the answer of a body of JSON in which names stand for texts."""
        if not self._named:
            return Response(body, media_type=MediaType.JSON, status_code=status, headers=headers)
        pieces = self.put_into(body)
        length = {"content-length": str(sum(map(len, pieces)))}
        return Stream(in_turns(pieces), media_type=MediaType.JSON, status_code=status, headers={**(headers or {}), **length})

    def put_into(self, body: bytes) -> list[bytes]:
        """Put the pieces into the places of their names."""
        if not self._named:
            return [body]
        names = re.compile(b"(" + b"|".join(self._named) + b")")
        return [piece for part in names.split(body) for piece in self._named.get(part, [part])]

    def _name(self, pieces: list[bytes]) -> str:
        """Give a name that no client can have written into its output before."""
        name = secrets.token_hex(16)
        self._named[name.encode()] = pieces
        return name


def plain_texts(stage: model.StageResult) -> Texts:
    """Decode the output of a stage at once. Undecodable bytes become U+FFFD."""
    stdout, stderr = stage.stdout, stage.stderr
    return Texts(stdout.decode(errors="replace"), stderr.decode(errors="replace"), model.interleave(stage.chunks))


def is_large(stage: model.StageResult) -> bool:
    """Say whether the output of a stage is too much to be written at once."""
    return sum(len(chunk.data) for chunk in stage.chunks) > LARGE_BYTES


def _cut(stage: model.StageResult) -> Iterator[tuple[model.StreamName, bytes]]:
    for chunk in stage.chunks:
        for start in range(0, len(chunk.data), LARGE_BYTES):
            yield chunk.stream, chunk.data[start : start + LARGE_BYTES]


def _content(text: str) -> bytes:
    """Write what is between the quotes of a JSON string."""
    return _encode(text)[1:-1]


async def in_turns(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Collect small pieces, and hand out enough at once to be worth it."""
    waiting, waiting_bytes = list[bytes](), 0
    for piece in pieces:
        waiting.append(piece)
        waiting_bytes += len(piece)
        if waiting_bytes >= SENT_BYTES:
            yield b"".join(waiting)
            waiting, waiting_bytes = [], 0
            await asyncio.sleep(0)
    if waiting:
        yield b"".join(waiting)
