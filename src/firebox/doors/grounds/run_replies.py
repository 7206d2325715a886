"""Runs a program, in a container of an `exec-LANGUAGE` image or in our own sandbox, and yields its replies. Source:
github.com/grounds/grounds-exec, docs/NEW_LANGUAGE.md and lib/utils.js.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from firebox.domain.errors import NotFound
from firebox.domain.limits import LimitRequest, NamedLanguage, OutputMode
from firebox.domain.model import Dispatched, Finished, Image, Job, Output, Queued, StageExited, StageStarted
from firebox.doors.grounds.rate_limit import Clock
from firebox.doors.grounds.wire import Reply, Request, last_reply, run_memory_bytes, to_job
from firebox.doors.http.output import StreamText
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


class Programs:
    """Runs programs, and remembers which images the engine does not have."""

    def __init__(self, service: Service, settings: Settings, clock: Clock) -> None:
        self._service = service
        self._settings = settings
        self._clock = clock
        self._missing: dict[str, float] = {}

    async def execute(self, request: Request, caller: Caller) -> AsyncGenerator[Reply]:
        """Run a program: in a container where the engine has an image of its language, else in our own sandbox.

        Raises: InvalidRequest for code that no program can be given as an argument; what `Service.start` raises; FireboxError
        where the backend failed in a way that has a class.
        """
        image = self._image_of(request.language) if self._service.has_containers else None
        if image is not None:
            try:
                async with aclosing(self._run(_container_job(request, image, self._settings), caller)) as replies:
                    async for reply in replies:
                        yield reply
                return
            except NotFound:  # raised before the first reply
                self._miss(image)
        runtime = self._service.resolve(request.language, "*")
        async with aclosing(self._run(to_job(request, runtime, self._settings), caller)) as replies:
            async for reply in replies:
                yield reply

    async def _run(self, job: Job, caller: Caller) -> AsyncGenerator[Reply]:
        text = StreamText()
        is_started = False
        async with self._service.start(job, caller) as run:
            async for event in run.events():
                match event:
                    case Queued() | Dispatched():
                        pass
                    case StageStarted():
                        if not is_started:  # one `start`, whether the compiler or the program starts first
                            yield Reply("start")
                        is_started = True
                    case Output():
                        if piece := text.feed(event):
                            yield Reply(event.stream, piece)
                    case StageExited():
                        for stream, rest in text.rest():
                            yield Reply(stream, rest)
                    case Finished(result=result):
                        if run.failure is not None:
                            raise run.failure
                        yield last_reply(result)

    def _image_of(self, language: str) -> str | None:
        """Name the image of a language; None if the engine did not have it recently, or cannot have it."""
        if len(language) > _LANGUAGE_CHARACTERS or not _LANGUAGE.fullmatch(language):
            return None
        image = f"{self._settings.grounds_repository}/exec-{language}:{self._settings.grounds_tag}".removeprefix("/")
        return None if self._missing.get(image, 0.0) > self._clock() else image

    def _miss(self, image: str) -> None:
        """Remember that the engine does not have an image."""
        while len(self._missing) >= MISSING_IMAGES:
            del self._missing[next(iter(self._missing))]
        self._missing[image] = self._clock() + MISSING_S


def _container_job(request: Request, image: str, settings: Settings) -> Job:
    """Convert a request to a job. Raises: InvalidRequest."""
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
