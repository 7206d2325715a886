"""Runs for glot-run's API: in a container of the registered image, or in the sandbox, with the same response."""

from __future__ import annotations

import asyncio

from firebox.domain.errors import ContainerError, NotFound, SandboxError
from firebox.domain.model import Finished, Result, Run, StageStarted
from firebox.doors.glot import wire
from firebox.service.callers import Caller
from firebox.service.languages import read_native
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.records import Language


async def run(asked: wire.RunRequest, language: Language, caller: Caller, service: Service, settings: Settings) -> wire.Answer:
    """Run a program to its end. Cancelling this cancels the run.

    Raises: RunFailed for a failure of the program or its container; otherwise as `Service.start`.
    """
    native = read_native(language.image)
    if native is None:
        async with service.start(wire.to_image_job(asked, language, settings), caller) as started:
            result = await started.result()
        _check_image(started, language)
        return wire.from_container(result)
    job = wire.to_job(asked, native, service.resolve(native.language, native.version), settings)
    async with service.start(job, caller) as started:
        result = await _result_within(started, settings.docker_run_timeout_ms / 1000)
    return wire.from_result(result, settings.glot_output_bytes)


async def _result_within(run: Run, seconds: float) -> Result:
    """Wait for the result of a run whose stages together may take no longer than a container. Raises: TooSlow."""
    clock = asyncio.timeout(None)
    try:
        async with clock:
            async for event in run.events():
                if isinstance(event, StageStarted):
                    clock.reschedule(asyncio.get_running_loop().time() + seconds)
                    return await run.result()
                if isinstance(event, Finished):
                    return event.result
    except TimeoutError:
        if clock.expired():
            raise wire.TooSlow from None
        raise
    raise SandboxError("the run ended without a result")


def _check_image(run: Run, language: Language) -> None:
    """Raises: ContainerError, PartUnavailable when the container engine failed."""
    if isinstance(run.failure, NotFound):
        raise ContainerError(f"the container engine has no image {language.image}")
    if run.failure is not None:
        raise run.failure
