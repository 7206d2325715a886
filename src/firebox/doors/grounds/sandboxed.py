"""A run in our own sandbox, as replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from firebox.doors.grounds.run_replies import replies_of
from firebox.doors.grounds.wire import Reply, Request, to_job
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings


async def run_in_sandbox(request: Request, caller: Caller, service: Service, settings: Settings) -> AsyncGenerator[Reply]:
    """Run a program and yield its replies. Raises: what `Service.start` raises."""
    runtime = service.resolve(request.language, "*")
    job = to_job(request, runtime, settings)
    async with service.start(job, caller) as run, aclosing(replies_of(run)) as replies:
        async for reply in replies:
            yield reply
