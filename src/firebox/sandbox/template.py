"""One template; see `pool.templates`."""

from __future__ import annotations

import os


class Template:
    """The template of one spec: a sealed, executable memfd, closed with the last reference to it."""

    def __init__(self, descriptor: int, made_at: float) -> None:
        self.descriptor = descriptor
        self.bytes = os.fstat(descriptor).st_size
        self.made_at = made_at
        self.runs = 0
        self.failed = False
        """Whether a program that was restored from it ended before it could continue."""

    def __del__(self) -> None:
        os.close(self.descriptor)
