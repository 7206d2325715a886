"""Piston's v2 API. Version 3: `package_routes`; JSON types: `wire`; parsing: `request`; the WebSocket: `connect`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Response, route, websocket
from litestar.enums import MediaType
from litestar.response.base import ASGIResponse
from litestar.types import ControllerRouterHandler, Method

from firebox.domain.errors import CapacityError, Conflict, FireboxError
from firebox.doors.http.credentials import identify
from firebox.doors.http.output import Pieces
from firebox.doors.http.refusals import UnsupportedBody
from firebox.doors.http.requests import AnyRequest, AnySocket, check_origin, read_json_body, read_origins, while_connected
from firebox.doors.http.routing import Router
from firebox.doors.http.status import headers_of
from firebox.doors.piston import package_routes, wire
from firebox.doors.piston.connect import serve_connection
from firebox.doors.piston.operators import packages_of, require_operator
from firebox.doors.piston.package_list import find_to_install, find_to_uninstall, list_packages
from firebox.doors.piston.request import Document, read_document, read_selector, to_job
from firebox.service.service import Service
from firebox.settings.settings import Settings

PREFIXES = ("/api/v2", "/api/v2/piston")
"""The second prefix is that of the former public instance, which client libraries hard-code."""

WITHOUT_BODY: tuple[Method, ...] = ("GET", "HEAD")
WITH_BODY: tuple[Method, ...] = ("POST", "PUT", "PATCH", "DELETE")

_log = structlog.get_logger("firebox.piston")


def routers(service: Service, settings: Settings) -> list[Router]:
    """Return the routers of this door: version 2 once per prefix, and version 3."""
    door = Door(service, settings)
    table: dict[str, list[tuple[tuple[Method, ...], Callable[..., Awaitable[Any]]]]] = {
        "/execute": [(("POST",), door.execute)],
        "/runtimes": [(WITHOUT_BODY, door.list_runtimes)],
        "/packages": [(WITHOUT_BODY, door.list_packages), (("POST",), door.install), (("DELETE",), door.uninstall)],
        "/connect": [],  # without an upgrade
        "/": [],
        "/{path:path}": [],
    }
    handlers: list[ControllerRouterHandler] = [websocket("/connect")(door.connect)]
    for path, served in table.items():
        taken = {method for methods, _ in served for method in methods}
        rest: tuple[Method, ...] = tuple(method for method in (*WITHOUT_BODY, *WITH_BODY) if method not in taken)
        handlers += [
            route(path, http_method=list(methods), status_code=HTTPStatus.OK, include_in_schema=False)(handler)
            for methods, handler in [*served, (rest, answer_unknown_route)]
        ]
    version_2 = [
        Router(prefix, route_handlers=handlers, exception_handlers={FireboxError: answer_error, Exception: answer_bug})
        for prefix in PREFIXES
    ]
    return [*version_2, package_routes.router(service, settings)]


class Door:
    """Request handlers on top of the service."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._origins = read_origins(settings.cors_origins)

    async def execute(self, request: AnyRequest) -> Response[Any]:
        """Run a job to completion; a client that disconnects cancels it."""
        caller = await identify(request, self._service)
        document = await self._read(request)
        job = to_job(document, self._service.resolve, self._settings)
        result = await while_connected(request, self._service.execute(job, caller))
        pieces = Pieces()
        return pieces.answer(wire.encode(wire.from_result(result, await pieces.texts_of(result))))

    async def list_runtimes(self) -> ASGIResponse:
        return _answer(wire.from_runtimes(self._service.runtimes()))

    async def list_packages(self, request: AnyRequest) -> ASGIResponse:
        """List available and installed packages. Anyone who may run programs may call it."""
        await identify(request, self._service)
        return _answer(wire.from_packages(await list_packages(self._service)))

    async def install(self, request: AnyRequest) -> ASGIResponse:
        """Install the newest matching package. A client that disconnects does not stop it.

        Raises: as `require_operator`, `find_to_install` and `Packages.install`.
        """
        await require_operator(request, self._service)
        entry = await find_to_install(self._service, *read_selector(await self._read(request)))
        await while_connected(request, packages_of(self._service).install(entry).result())
        return _answer(wire.PackageName(entry.language, entry.version))

    async def uninstall(self, request: AnyRequest) -> ASGIResponse:
        """Uninstall the newest matching installed package; runtimes of the host stay.

        Raises: as `require_operator`, `find_to_uninstall` and `Packages.uninstall`.
        """
        await require_operator(request, self._service)
        package = await find_to_uninstall(self._service, *read_selector(await self._read(request)))
        await while_connected(request, packages_of(self._service).uninstall(package.id))
        return _answer(wire.PackageName(package.entry.language, package.entry.version))

    async def connect(self, socket: AnySocket) -> None:
        """Serve one interactive job."""
        try:
            check_origin(socket, self._origins)
            caller = await identify(socket, self._service)
        except FireboxError as error:
            _log.info("connection refused", code=error.code)
            await socket.close()  # before it is accepted: the handshake is answered with 403
        else:
            await serve_connection(socket, self._service, self._settings, caller)

    async def _read(self, request: AnyRequest) -> Document:
        _require_json(request)
        return read_document(await read_json_body(request.receive, request.headers, self._settings.max_body_bytes))


async def answer_unknown_route(request: AnyRequest) -> ASGIResponse:
    """Return 404 for an unknown path or method."""
    if request.method in WITH_BODY:
        _require_json(request)
    return _answer(wire.Message("Not Found"), HTTPStatus.NOT_FOUND)


def answer_error(_request: AnyRequest, error: FireboxError) -> Response[bytes]:
    status, message = wire.from_error(error)
    if status >= 500 and not isinstance(error, CapacityError | Conflict):
        _log.error("request failed", code=error.code, message=error.message, hint=error.hint)
    return Response(wire.encode(message), status_code=status, headers=headers_of(error), media_type=MediaType.JSON)


def answer_bug(_request: AnyRequest, error: Exception) -> Response[bytes]:
    """Return 500 for an unexpected exception. Details go to the log, not to the client."""
    _log.error("unhandled error in a request", exc_info=error)
    body = wire.encode(wire.Message("internal error; see the server log"))
    return Response(body, status_code=HTTPStatus.INTERNAL_SERVER_ERROR, media_type=MediaType.JSON)


def _require_json(request: AnyRequest) -> None:
    """Require the content type that Piston requires. Raises: UnsupportedBody."""
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise UnsupportedBody("requests must be of type application/json")


def _answer(document: object, status: int = HTTPStatus.OK) -> ASGIResponse:
    return ASGIResponse(body=wire.encode(document), status_code=status, media_type=MediaType.JSON)
