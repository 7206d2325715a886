"""One template; `templates` says what that is."""

from __future__ import annotations

import os


class Template:
    """The template of one kind of sandbox: a memfd that can be executed and not be changed, closed when nobody has it."""

    def __init__(self, descriptor: int, made_at: float) -> None:
        self.descriptor = descriptor
        self.bytes = os.fstat(descriptor).st_size
        self.made_at = made_at
        self.runs = 0
        self.failed = False
        """Whether something that was restored from it has ended before it could go on."""

    def __del__(self) -> None:
        os.close(self.descriptor)
