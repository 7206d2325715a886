"""Runs for glot-run's API: in a container of the registered image, or in the sandbox, with the same response."""

from __future__ import annotations

from firebox.domain.errors import ContainerError, NotFound
from firebox.domain.model import Run
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
    service.resolve(native.language, native.version)  # an unknown runtime does not count against the client's quota
    result = await service.execute(wire.to_job(asked, native, settings), caller)
    return wire.from_result(result, settings.glot_output_bytes)


def _check_image(run: Run, language: Language) -> None:
    """Raises: ContainerError, PartUnavailable when the container engine failed."""
    if isinstance(run.failure, NotFound):
        raise ContainerError(f"the container engine has no image {language.image}")
    if run.failure is not None:
        raise run.failure
