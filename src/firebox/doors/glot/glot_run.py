"""Runs for glot-run's API: in a container of the registered image, or in the sandbox, with the same response."""

from __future__ import annotations

import asyncio

from firebox.domain.errors import ContainerError, NotFound, SandboxError
from firebox.domain.model import Finished, Result, StageStarted
from firebox.doors.glot import wire
from firebox.service.callers import Caller
from firebox.service.languages import Native, read_native
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.records import Language


async def run(asked: wire.RunRequest, language: Language, caller: Caller, service: Service, settings: Settings) -> wire.Answer:
    """Run a program to its end. Cancelling this cancels the run.

    Raises: RunFailed for a failure of the program or its container; otherwise as `Service.start`.
    """
    native = read_native(language.image)
    if native is None:
        return await _run_in_container(asked, language, caller, service, settings)
    return await _run_in_sandbox(asked, native, caller, service, settings)


async def _run_in_container(
    asked: wire.RunRequest, language: Language, caller: Caller, service: Service, settings: Settings
) -> wire.Answer:
    stdout, stderr = bytearray(), bytearray()
    try:
        async with service.start_container(wire.to_container(asked, language, settings), caller) as container:
            async for chunk in container.output():
                (stdout if chunk.stream == "stdout" else stderr).extend(chunk.data)
    except NotFound:
        raise ContainerError(f"the container engine has no image {language.image}") from None
    if container.timed_out:
        raise wire.TooSlow
    if container.overflowed:
        raise wire.TooMuchOutput
    return wire.from_container(bytes(stdout), bytes(stderr), container.exit_code)


async def _run_in_sandbox(
    asked: wire.RunRequest, native: Native, caller: Caller, service: Service, settings: Settings
) -> wire.Answer:
    runtime = service.resolve(native.language, native.version)
    job = wire.to_job(asked, native, runtime, settings)
    # Each stage has its own limits; together they are limited to the time of a container.
    clock = asyncio.timeout(None)
    result: Result | None = None
    try:
        async with service.start(job, caller) as started, clock:
            async for event in started.events():
                if isinstance(event, StageStarted) and clock.when() is None:
                    clock.reschedule(asyncio.get_running_loop().time() + settings.docker_run_timeout_ms / 1000)
                if isinstance(event, Finished):
                    result = event.result
    except TimeoutError:
        if clock.expired():
            raise wire.TooSlow from None
        raise
    if result is None:
        raise SandboxError("the run ended without a result")
    return wire.from_result(result, settings.glot_output_bytes)
