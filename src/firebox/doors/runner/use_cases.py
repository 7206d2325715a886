"""Runner's four calls, shared by gRPC and the JSON gateway."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from firebox.domain.errors import FireboxError, Forbidden, InvalidRequest
from firebox.doors.runner.grpc_logs import silence
from firebox.doors.runner.proto.runner_pb2 import (
    CodeRequest,
    CodeResponse,
    DeleteCodeRequest,
    DeleteCodeResponse,
    IdRequest,
    ShareResponse,
)
from firebox.doors.runner.wire import NotAdmin
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.service.snippets import AdminCheck
from firebox.settings.settings import Settings

SHARE_FAILED = "failed to share code"
GET_FAILED = "failed to get code by id"
"""Prefixes of Runner's error messages."""


class Calls:
    """The four calls, independent of the transport. Each raises FireboxError only, apart from bugs."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._is_admin = _admin_check(service, settings)

    async def run_code(self, request: CodeRequest, caller: Caller) -> CodeResponse:
        """Run a program to its end. Cancelling this cancels the run."""
        outcome = await self._service.snippets.run(request.code, language=request.language, caller=caller)
        return CodeResponse(code=request.code, output=outcome.output, error=outcome.error)

    async def share_code(self, request: CodeRequest, caller: Caller) -> ShareResponse:
        """Run a program and store it, unless it fails."""
        with _failing_as(SHARE_FAILED):
            return ShareResponse(id=await self._service.snippets.share(request.code, language=request.language, caller=caller))

    async def get_code(self, request: IdRequest, _caller: Caller) -> CodeResponse:
        """Return a stored program."""
        with _failing_as(GET_FAILED):
            snippet = await self._service.snippets.get(request.id)
        return CodeResponse(code=snippet.code, output=snippet.output, error=snippet.error)

    async def delete_code(self, request: DeleteCodeRequest, caller: Caller) -> DeleteCodeResponse:
        """Delete a stored program. Raises: NotAdmin."""
        try:
            await self._service.snippets.delete(request.id, user_id=request.user_id, caller=caller, is_admin=self._is_admin)
        except Forbidden:
            raise NotAdmin from None
        return DeleteCodeResponse(success=True)


@contextmanager
def _failing_as(words: str) -> Generator[None]:
    """Prefix the messages of errors raised inside."""
    try:
        yield
    except FireboxError as error:
        if isinstance(error, InvalidRequest) and error.where:
            words, error.where = f"{words}: {error.where}", ""
        error.message = f"{words}: {error.message}"
        raise


def _admin_check(service: Service, settings: Settings) -> AdminCheck:
    """Return the check for admins: the sign-on service if configured, otherwise the table of users."""
    if not settings.sso_address:
        return service.accounts.is_admin
    silence()
    # Imported late: most servers need no gRPC client.
    from firebox.doors.runner.sso import SignOnService

    return SignOnService(settings).is_admin
