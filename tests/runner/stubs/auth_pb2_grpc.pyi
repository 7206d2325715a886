from grpc import aio as _aio

from firebox.doors.runner.proto import auth_pb2 as _messages

class AuthStub:
    IsAdmin: _aio.UnaryUnaryMultiCallable[_messages.IsAdminRequest, _messages.IsAdminResponse]
    def __init__(self, channel: _aio.Channel) -> None: ...

class AuthServicer:
    async def IsAdmin(self, request: _messages.IsAdminRequest, context: _aio.ServicerContext[_messages.IsAdminRequest, _messages.IsAdminResponse]) -> _messages.IsAdminResponse: ...

def add_AuthServicer_to_server(servicer: AuthServicer, server: _aio.Server) -> None: ...
