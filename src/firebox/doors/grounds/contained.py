"""A run in a container of an `exec-LANGUAGE` image, as replies.

Source: github.com/grounds/grounds-exec, docs/NEW_LANGUAGE.md and lib/utils.js.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from firebox.domain.limits import LimitRequest, NamedLanguage, OutputMode
from firebox.domain.model import Image, Job
from firebox.doors.grounds.rate_limit import Clock
from firebox.doors.grounds.run_replies import replies_of
from firebox.doors.grounds.wire import Reply, Request, run_memory_bytes
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.validation import check_word
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

MISSING_S = 60.0
"""How long a missing image is remembered."""
MISSING_IMAGES = 256

_LANGUAGE = re.compile(r"[a-z0-9]+(?:[._-]{1,2}[a-z0-9]+)*")
"""Source: Docker, "distribution/reference", path-component."""
_LANGUAGE_CHARACTERS = 64
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class Images:
    """Remembers which images the engine does not have."""

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
    """Run a program and yield its replies.

    Raises: NotFound before the first reply when the engine does not have the image; InvalidRequest for code that no program can
    be given as an argument; what `Service.start` raises.
    """
    job = _job(request, image, settings)
    async with service.start(job, caller) as run, aclosing(replies_of(run)) as replies:
        async for reply in replies:
            yield reply


def _job(request: Request, image: str, settings: Settings) -> Job:
    """Raises: InvalidRequest."""
    code = request.code.translate(_ESCAPES)
    check_word(code, where="code")
    named = NamedLanguage((request.language,))
    return Job(
        language=request.language,
        image=Image(name=image),
        # Empty code is a program too, not the image's own arguments.
        args=(code,),
        run_limits=LimitRequest(
            memory_bytes=run_memory_bytes(settings, named),
            wall_ms=settings.grounds_wall_ms,
            output_bytes=limit_policy(settings).default_limits("run", named).output_bytes,
            output_mode=OutputMode.KILL,
        ),
    )
