"""Output as text, piece by piece, for doors that stream JSON."""

from __future__ import annotations

import codecs

from firebox.domain.model import Chunk, Output, StreamName


class StreamText:
    """Decodes the output of one stage as UTF-8. A character split over two pieces is returned whole with the second one."""

    def __init__(self) -> None:
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders: dict[StreamName, codecs.IncrementalDecoder] = {"stdout": make("replace"), "stderr": make("replace")}

    def feed(self, output: Output | Chunk) -> str:
        """Decode a piece; "" while a character is incomplete. Undecodable bytes become U+FFFD."""
        return self._decoders[output.stream].decode(output.data)

    def rest(self) -> list[tuple[StreamName, str]]:
        """Return the replacements for an incomplete character at the end of each stream, and reset the decoders."""
        ends: list[tuple[StreamName, str]] = []
        for stream, decoder in self._decoders.items():
            ends.append((stream, decoder.decode(b"", final=True)))
            decoder.reset()
        return [(stream, text) for stream, text in ends if text]
