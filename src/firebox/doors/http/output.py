"""Large parts of JSON responses: output and artifacts of a run.

A control character takes six bytes of JSON, and a response contains output twice, so 8 MiB of output can become 200 MB. Encoding
it in one go would block the event loop for seconds. So large texts are encoded piece by piece, yielding to other tasks in
between. A short placeholder stands for each text while the response is encoded; the pieces replace it as the response is sent,
and are never joined.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, AnyStr, NamedTuple

import msgspec
from litestar import Response
from litestar.enums import MediaType
from litestar.response import Stream

from firebox.domain import model
from firebox.domain.limits import StageName

LARGE_BYTES = 64 * 1024
"""Larger texts are encoded in pieces of this size."""
BASE64_BYTES = 48 * 1024
"""A multiple of three, so that pieces of base64 can be concatenated."""
SENT_BYTES = 256 * 1024
"""How much is passed to a connection at once."""

_encode = msgspec.json.Encoder().encode


class Texts(NamedTuple):
    """The output of a stage, or placeholders for it. output: both streams, interleaved as they arrived."""

    stdout: str
    stderr: str
    output: str


class Pieces:
    """The large texts of one response. Small ones are returned unchanged."""

    def __init__(self) -> None:
        self._named: dict[bytes, list[bytes]] = {}

    async def texts(self, stage: model.StageResult) -> Texts:
        """Decode the output of a stage as `plain_texts` does, or return placeholders."""
        text = StreamText()
        written: dict[model.StreamName, list[bytes]] = {"stdout": [], "stderr": []}
        in_order: list[bytes] = []

        def write(stream: model.StreamName, decoded: str) -> None:
            piece = _content(decoded)
            written[stream].append(piece)
            in_order.append(piece)

        waiting_bytes = 0
        for chunk in _cut(stage):
            write(chunk.stream, text.feed(chunk))
            waiting_bytes += len(chunk.data)
            if waiting_bytes >= LARGE_BYTES:
                waiting_bytes = 0
                await asyncio.sleep(0)
        for stream, rest in text.rest():
            write(stream, rest)
        return Texts(self._name(written["stdout"]), self._name(written["stderr"]), self._name(in_order))

    async def texts_of(self, result: model.Result) -> dict[StageName, Texts]:
        """Decode the output of the stages with large output."""
        stages = [stage for stage in (result.compile, result.run) if stage is not None and is_large(stage)]
        return {stage.stage: await self.texts(stage) for stage in stages}

    async def text(self, text: str) -> str:
        """Return a text, or a placeholder for a large one."""
        return text if len(text) <= LARGE_BYTES else await self._encode(text, LARGE_BYTES, _content)

    async def base64(self, data: bytes) -> str:
        """Return base64, or a placeholder for a large value."""
        if len(data) <= LARGE_BYTES:
            return base64.b64encode(data).decode()
        return await self._encode(data, BASE64_BYTES, base64.b64encode)

    async def _encode(self, value: AnyStr, size: int, encode: Callable[[AnyStr], bytes]) -> str:
        """Encode a large value, `size` characters or bytes at a time. Return a placeholder for it."""
        pieces: list[bytes] = []
        for start in range(0, len(value), size):
            pieces.append(encode(value[start : start + size]))
            await asyncio.sleep(0)
        return self._name(pieces)

    def answer(self, body: bytes, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response[Any]:
        """Create the response for a JSON body with placeholders."""
        if not self._named:
            return Response(body, media_type=MediaType.JSON, status_code=status, headers=headers)
        pieces = self.put_into(body)
        length = {"content-length": str(sum(map(len, pieces)))}
        return Stream(in_chunks(pieces), media_type=MediaType.JSON, status_code=status, headers={**(headers or {}), **length})

    def put_into(self, body: bytes) -> list[bytes]:
        """Replace placeholders by their pieces."""
        if not self._named:
            return [body]
        names = re.compile(b"(" + b"|".join(self._named) + b")")
        return [piece for part in names.split(body) for piece in self._named.get(part, [part])]

    def _name(self, pieces: list[bytes]) -> str:
        """Return a placeholder that no program can guess and print."""
        name = secrets.token_hex(16)
        self._named[name.encode()] = pieces
        return name


class StreamText:
    """Decodes the output of one stage as UTF-8. A character split over two pieces is returned whole with the second one."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders: dict[model.StreamName, codecs.IncrementalDecoder] = {"stdout": make("replace"), "stderr": make("replace")}

    def feed(self, output: model.Output | model.Chunk) -> str:
        """Decode a piece; "" while a character is incomplete. Undecodable bytes become U+FFFD."""
        return self._decoders[output.stream].decode(output.data)

    def rest(self) -> list[tuple[model.StreamName, str]]:
        """Return the replacements for an incomplete character at the end of each stream, and reset the decoders."""
        ends: list[tuple[model.StreamName, str]] = []
        for stream, decoder in self._decoders.items():
            ends.append((stream, decoder.decode(b"", final=True)))
            decoder.reset()
        return [(stream, text) for stream, text in ends if text]


def plain_texts(stage: model.StageResult) -> Texts:
    """Decode the output of a stage. Undecodable bytes become U+FFFD."""
    stdout, stderr = stage.stdout, stage.stderr
    return Texts(stdout.decode(errors="replace"), stderr.decode(errors="replace"), model.interleave(stage.chunks))


def is_large(stage: model.StageResult) -> bool:
    """Return whether the output of a stage is too large to be encoded at once."""
    return sum(len(chunk.data) for chunk in stage.chunks) > LARGE_BYTES


def _cut(stage: model.StageResult) -> Iterator[model.Chunk]:
    for chunk in stage.chunks:
        if len(chunk.data) <= LARGE_BYTES:
            yield chunk
            continue
        for start in range(0, len(chunk.data), LARGE_BYTES):
            yield model.Chunk(chunk.stream, chunk.data[start : start + LARGE_BYTES])


def _content(text: str) -> bytes:
    """Return the characters between the quotes of a JSON string."""
    return _encode(text)[1:-1]


async def in_chunks(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces joined to chunks of a useful size, with other tasks run in between."""
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
