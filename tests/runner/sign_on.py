"""A real sign-on service, built from the protocol file: reports admins, late or not at all if told so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

from firebox.doors.runner.proto.auth_pb2 import IsAdminRequest, IsAdminResponse
from tests.runner.stubs.auth_pb2_grpc import AuthServicer, add_AuthServicer_to_server

Context = grpc.aio.ServicerContext[IsAdminRequest, IsAdminResponse]


@dataclass
class SignOn(AuthServicer):
    """admins: ids of admins. failures: statuses for the first requests, one each. slow: never respond. asked: the user of each
    request so far. given_up: how many requests were cancelled.
    """

    admins: set[int] = field(default_factory=set[int])
    failures: list[grpc.StatusCode] = field(default_factory=list[grpc.StatusCode])
    slow: bool = False
    asked: list[int] = field(default_factory=list[int])
    given_up: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def IsAdmin(self, request: IsAdminRequest, context: Context) -> IsAdminResponse:  # noqa: N802 - the protocol's name
        self.asked.append(request.user_id)
        await self._tell()
        if self.slow:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
                await self._tell()
        if self.failures:
            await context.abort(self.failures.pop(0), "words of the sign-on service")
        return IsAdminResponse(is_admin=request.user_id in self.admins)

    async def until_asked(self) -> None:
        """Wait for the first request."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.asked)

    async def until_given_up(self) -> None:
        """Wait until every request was cancelled."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.given_up == len(self.asked))

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    @asynccontextmanager
    async def serve(self, address: str = "127.0.0.1:0") -> AsyncGenerator[str]:
        """Serve while the context is open. Yield the address."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_AuthServicer_to_server(self, server)
        port = server.add_insecure_port(address)
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
