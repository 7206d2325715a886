"""A run in a container of an `exec-LANGUAGE` image, told as replies.

Source: github.com/grounds/grounds-exec, docs/NEW_LANGUAGE.md and lib/utils.js.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from firebox.domain.limits import NamedLanguage, OutputMode
from firebox.domain.model import Output
from firebox.doors.grounds.rate_limit import Clock
from firebox.doors.grounds.wire import CANCELLED, TIMEOUT, TOO_MUCH_OUTPUT, Reply, Request, run_memory_bytes, signed
from firebox.doors.http.text import StreamText
from firebox.engine.container_spec import ContainerSpec
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.validation import check_word
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

MISSING_S = 60.0
"""How long an image that the engine does not have is not asked for again."""
MISSING_IMAGES = 256

_LANGUAGE = re.compile(r"[a-z0-9]+(?:[._-]{1,2}[a-z0-9]+)*")
"""Source: Docker, "distribution/reference", path-component."""
_LANGUAGE_CHARACTERS = 64
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Images:
    """Knows which languages have no image, for a while."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._missing: dict[str, float] = {}

    def name_of(self, language: str) -> str | None:
        """Name the image of a language; None where the engine did not have it lately, or cannot have it."""
        if len(language) > _LANGUAGE_CHARACTERS or not _LANGUAGE.fullmatch(language):
            return None
        image = f"{self._settings.grounds_repository}/exec-{language}:{self._settings.grounds_tag}"
        image = image.removeprefix("/")
        return None if self._missing.get(image, 0.0) > self._clock() else image

    def miss(self, image: str) -> None:
        """Remember that the engine does not have an image."""
        while len(self._missing) >= MISSING_IMAGES:
            del self._missing[next(iter(self._missing))]
        self._missing[image] = self._clock() + MISSING_S


async def run_in_container(
    request: Request, image: str, caller: Caller, service: Service, settings: Settings
) -> AsyncGenerator[Reply]:
    """Run a program and tell what happens.

    Raises: NotFound before the first reply when the engine does not have the image; InvalidRequest for code that no program can
    be given as an argument; what `Service.start_container` raises.
    """
    code = request.code.translate(_ESCAPES)
    check_word(code, where="code")
    text = StreamText()
    async with service.start_container(_specification(code, image, request.language, settings), caller) as container:
        yield Reply("start")
        sequence = 0
        async for chunk in container.output():
            sequence += 1
            piece = text.feed(Output(sequence=sequence, stage="run", stream=chunk.stream, data=chunk.data))
            if piece:
                yield Reply(chunk.stream, piece)
        for stream, rest in text.rest():
            yield Reply(stream, rest)
        if container.timed_out:
            yield Reply("error", TIMEOUT)
        elif container.overflowed:
            yield Reply("error", TOO_MUCH_OUTPUT)
        elif container.exit_code is None:
            yield Reply("error", CANCELLED)
        else:
            yield Reply("status", signed(container.exit_code))


def _specification(code: str, image: str, language: str, settings: Settings) -> ContainerSpec:
    named = NamedLanguage((language,))
    return ContainerSpec(
        image=image,
        # Empty code is a program too, not the image's own arguments.
        arguments=(code,),
        memory_bytes=run_memory_bytes(settings, named),
        wall_ms=settings.grounds_wall_ms,
        output_bytes=limit_policy(settings).default_limits("run", named).output_bytes,
        output_mode=OutputMode.KILL,
    )
