"""Output kept in order and in little memory."""

from __future__ import annotations

from firebox.domain.model import Chunk
from firebox.engine.transcript import SWITCHES_KEPT, Transcript


def test_neighbours_of_one_stream_become_one_chunk() -> None:
    transcript = Transcript()
    for chunk in (Chunk("stdout", b"a"), Chunk("stdout", b"b"), Chunk("stderr", b"c"), Chunk("stdout", b"d")):
        transcript.add(chunk.stream, chunk.data)
    assert transcript.chunks() == (Chunk("stdout", b"ab"), Chunk("stderr", b"c"), Chunk("stdout", b"d"))


def test_attack_20_alternating_streams_do_not_grow_the_number_of_chunks_for_ever() -> None:
    transcript = Transcript()
    for _ in range(SWITCHES_KEPT * 5):
        transcript.add("stdout", b"o")
        transcript.add("stderr", b"e")
    chunks = transcript.chunks()
    assert len(chunks) == SWITCHES_KEPT
    assert sum(len(chunk.data) for chunk in chunks if chunk.stream == "stderr") == SWITCHES_KEPT * 5
