"""Output kept in order and in little memory."""

from __future__ import annotations

from firebox.domain.model import Chunk
from firebox.engine.transcript import SWITCHES_KEPT, Transcript
from firebox.sandbox.spec import Exit


def test_neighbours_of_one_stream_become_one_chunk() -> None:
    transcript = Transcript(1 << 20)
    for chunk in (Chunk("stdout", b"a"), Chunk("stdout", b"b"), Chunk("stderr", b"c"), Chunk("stdout", b"d")):
        transcript.add(chunk.stream, chunk.data)
    assert transcript.chunks() == (Chunk("stdout", b"ab"), Chunk("stderr", b"c"), Chunk("stdout", b"d"))


def test_attack_20_alternating_streams_do_not_grow_the_number_of_chunks_for_ever() -> None:
    transcript = Transcript(1 << 20)
    for _ in range(SWITCHES_KEPT * 5):
        transcript.add("stdout", b"o")
        transcript.add("stderr", b"e")
    chunks = transcript.chunks()
    assert len(chunks) == SWITCHES_KEPT
    assert sum(len(chunk.data) for chunk in chunks if chunk.stream == "stderr") == SWITCHES_KEPT * 5


def test_each_stream_is_cut_at_the_cap() -> None:
    transcript = Transcript(5)
    assert transcript.add("stdout", b"1234") == b"1234"
    assert transcript.add("stderr", b"12345") == b"12345"
    assert transcript.add("stdout", b"56") == b"5"
    assert transcript.add("stdout", b"7") == b""
    assert transcript.chunks() == (Chunk("stdout", b"1234"), Chunk("stderr", b"12345"), Chunk("stdout", b"5"))
    ended = transcript.mark(NEVER_CUT)
    assert (ended.stdout_truncated, ended.stderr_truncated) == (True, False)


NEVER_CUT = Exit(
    status=0,
    signal=None,
    killed_by="",
    wall_ms=1.0,
    cpu_ms=1.0,
    memory_peak_bytes=1,
    memory_limit_hit=False,
    stdout_truncated=False,
    stderr_truncated=False,
)
