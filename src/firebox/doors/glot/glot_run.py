"""A run: in a container of the registered image, or in our own sandbox; the same answer from both."""

from __future__ import annotations

from firebox.domain.errors import ContainerError, NotFound
from firebox.doors.glot import wire
from firebox.service.callers import Caller
from firebox.service.languages import Native, read_native
from firebox.service.service import Service
from firebox.settings.settings import Settings
from firebox.storage.records import Language


async def run(asked: wire.RunRequest, language: Language, caller: Caller, service: Service, settings: Settings) -> wire.Answer:
    """Run a program to its end. Cancelling this ends it.

    Raises: RunFailed for what the program or its container did, and what `Service.start` raises.
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
    service.resolve(native.language, native.version)  # an unknown runtime does not count against the caller's quota
    result = await service.execute(wire.to_job(asked, native, settings), caller)
    return wire.from_result(result, settings.glot_output_bytes)
