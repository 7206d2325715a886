"""Routes of Runner's JSON gateway: four calls as plain HTTP, their description, and /metrics. Its JSON: `wire`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from litestar import Response
from litestar.enums import MediaType
from litestar.response.base import ASGIResponse

from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.http.credentials import identify
from firebox.doors.http.output import Pieces
from firebox.doors.http.requests import AnyRequest, check_origin, read_json_body, read_origins, while_connected
from firebox.doors.http.routing import Router, Routes, handlers_of
from firebox.doors.http.status import headers_of
from firebox.doors.runner import wire
from firebox.doors.runner.wire import Status
from firebox.service import run_metrics
from firebox.service.callers import Caller
from firebox.service.service import Service
from firebox.settings.settings import Settings

if TYPE_CHECKING:  # protobuf is loaded with the first call
    from google.protobuf.message import Message

    from firebox.doors.runner.proto.runner_pb2 import CodeRequest
    from firebox.doors.runner.use_cases import Calls

DESCRIPTION_PATH = "/runner/openapi.json"

_log = structlog.get_logger("firebox.runner")


def routers(service: Service, settings: Settings) -> list[Router]:
    """Create the routes of this door."""
    door = Door(service, settings)
    routes: Routes = {
        "/run": {"POST": door.run},
        "/share": {"POST": door.share},
        "/shared/{snippet:str}": {"GET": door.get, "DELETE": door.delete},
        DESCRIPTION_PATH: {"GET": door.describe},
        "/metrics": {"GET": door.read_metrics},
    }
    handlers = handlers_of(routes, lambda _served: answer_unknown_method)
    return [Router("/", route_handlers=handlers, exception_handlers={FireboxError: answer_error, Exception: answer_bug})]


class Door:
    """Handlers for the calls that gRPC serves too."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._origins = read_origins(settings.cors_origins)

    @cached_property
    def _calls(self) -> Calls:
        from firebox.doors.runner.use_cases import Calls

        return Calls(self._service, self._settings)

    async def run(self, request: AnyRequest) -> Response[Any]:
        """RunCode. A client that disconnects cancels its run."""
        return await self._post(request, self._calls.run_code)

    async def share(self, request: AnyRequest) -> Response[Any]:
        """ShareCode."""
        return await self._post(request, self._calls.share_code)

    async def get(self, request: AnyRequest, snippet: str) -> Response[Any]:
        """GetCodeByID."""
        from firebox.doors.runner.proto.runner_pb2 import IdRequest

        caller = await identify(request, self._service)
        asked = IdRequest(id=wire.read_int64(snippet, where="id"))
        return await _answer(await self._calls.get_code(asked, caller))

    async def delete(self, request: AnyRequest, snippet: str) -> Response[Any]:
        """DeleteCode."""
        from firebox.doors.runner.proto.runner_pb2 import DeleteCodeRequest

        caller = await identify(request, self._service)
        asked = DeleteCodeRequest(id=wire.read_int64(snippet, where="id"), user_id=_user_id(request))
        return await _answer(await while_connected(request, self._calls.delete_code(asked, caller)))

    async def describe(self) -> ASGIResponse:
        """Return the OpenAPI document of the gateway."""
        # Imported on the first request for the document, not at startup.
        from firebox.doors.runner.runner_openapi import describe_gateway

        return ASGIResponse(body=describe_gateway(), media_type=MediaType.JSON)

    async def read_metrics(self, request: AnyRequest) -> ASGIResponse:
        """Return the metrics at Prometheus' usual path."""
        await identify(request, self._service)
        return ASGIResponse(body=self._service.metrics.text(), media_type=run_metrics.MEDIA_TYPE)

    async def _post(self, request: AnyRequest, call: Callable[[CodeRequest, Caller], Awaitable[Message]]) -> Response[Any]:
        from firebox.doors.runner.proto.runner_pb2 import CodeRequest

        if not request.headers.get("content-type", "").lower().startswith("application/json"):
            # Runner's gateway accepts any content type, so clients omit it. Browsers send such a request to
            # another site without a preflight request, but with the page's origin.
            check_origin(request, self._origins)
        caller = await identify(request, self._service)
        body = await read_json_body(request.receive, request.headers, self._settings.max_body_bytes)
        asked = wire.from_json(body, CodeRequest)
        return await _answer(await while_connected(request, call(asked, caller)))


async def answer_unknown_method() -> Response[bytes]:
    """Return the gateway's response for a method that a path does not support."""
    return _refusal(Status.UNIMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED.phrase, Status.UNIMPLEMENTED.http)


def owns_path(path: str) -> bool:
    """Return whether an unknown path belongs to the gateway."""
    return path.startswith(("/run/", "/share/", "/shared/"))


def answer_unknown_route() -> Response[bytes]:
    """Return the gateway's response for an unknown path."""
    return _refusal(Status.NOT_FOUND, HTTPStatus.NOT_FOUND.phrase, HTTPStatus.NOT_FOUND)


def answer_error(_request: AnyRequest, error: FireboxError) -> Response[bytes]:
    """Return the response for an error, as a gRPC status."""
    status, message = wire.from_error(error)
    if status is Status.INTERNAL:
        _log.error("request failed", code=error.code, message=error.message)
    return _refusal(status, message, wire.http_status(error), headers_of(error))


def answer_bug(_request: AnyRequest, error: Exception) -> Response[bytes]:
    """Log an unexpected error, and return a response without details."""
    _log.error("unhandled error in a request", exc_info=error)
    return _refusal(Status.INTERNAL, "internal error; see the server log", HTTPStatus.INTERNAL_SERVER_ERROR)


def _refusal(status: Status, message: str, http_status: int, headers: dict[str, str] | None = None) -> Response[bytes]:
    """Create an error response. Source: google.rpc.Status."""
    body = msgspec.json.encode({"code": int(status), "message": message, "details": []})
    return Response(body, status_code=http_status, headers=headers, media_type=MediaType.JSON)


async def _answer(message: Message) -> Response[Any]:
    pieces = Pieces()
    return pieces.answer(await wire.to_json(message, pieces))


def _user_id(request: AnyRequest) -> int:
    """Parse the query parameter; 0 (no user) if it is missing. Raises: InvalidRequest, also for a repeated one: a proxy may have
    checked the other value.
    """
    found = [text for name in ("user_id", "userId") for text in request.query_params.getall(name, [])]
    if len(found) > 1:
        raise InvalidRequest("repeated parameter", where="user_id")
    return wire.read_int64(found[0], where="user_id") if found else 0
