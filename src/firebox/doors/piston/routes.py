"""Piston's v2 API. Version 3: `package_routes`; JSON types: `wire`; parsing: `request`; the WebSocket: `connect`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from litestar import Response, websocket
from litestar.response.base import ASGIResponse

from firebox.domain.errors import CapacityError, Conflict, FireboxError
from firebox.doors.http.credentials import identify
from firebox.doors.http.output import Pieces
from firebox.doors.http.refusals import UnsupportedBody
from firebox.doors.http.requests import AnyRequest, AnySocket, check_origin, read_json_body, read_origins, while_connected
from firebox.doors.http.routing import Router, Routes, answer_json, error_handlers, handlers_of
from firebox.doors.piston import package_routes, wire
from firebox.doors.piston.connect import serve_connection
from firebox.doors.piston.package_list import find_to_install, find_to_uninstall, list_packages
from firebox.doors.piston.package_routes import packages_of, require_operator
from firebox.doors.piston.request import Document, read_document, read_selector, to_job
from firebox.service.service import Service
from firebox.settings.settings import Settings

PREFIXES = ("/api/v2", "/api/v2/piston")
"""The second prefix is that of the former public instance, which client libraries hard-code."""

WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")

_log = structlog.get_logger("firebox.piston")


def routers(service: Service, settings: Settings) -> list[Router]:
    """Return the routers of this door: version 2 once per prefix, and version 3."""
    door = Door(service, settings)
    routes: Routes = {
        "/execute": {"POST": door.execute},
        "/runtimes": {"GET HEAD": door.list_runtimes},
        "/packages": {"GET HEAD": door.list_packages, "POST": door.install, "DELETE": door.uninstall},
        "/connect": {},  # without an upgrade
        "/": {},
        "/{path:path}": {},
    }
    handlers = [websocket("/connect")(door.connect), *handlers_of(routes, lambda _served: answer_unknown_route)]
    bug = wire.Message("internal error; see the server log")
    errors = error_handlers(wire.from_error, bug, expected=(CapacityError, Conflict), logged=("code", "message", "hint"))
    version_2 = [Router(prefix, route_handlers=handlers, exception_handlers=errors) for prefix in PREFIXES]
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
        return answer_json(wire.from_runtimes(self._service.runtimes()))

    async def list_packages(self, request: AnyRequest) -> ASGIResponse:
        """List available and installed packages. Anyone who may run programs may call it."""
        await identify(request, self._service)
        listed = await list_packages(self._service)
        return answer_json([wire.PackageEntry(package.language, package.version, package.installed) for package in listed])

    async def install(self, request: AnyRequest) -> ASGIResponse:
        """Install the newest matching package. A client that disconnects does not stop it."""
        await require_operator(request, self._service)
        entry = await find_to_install(self._service, *read_selector(await self._read(request)))
        await while_connected(request, packages_of(self._service).install(entry).result())
        return answer_json(wire.PackageName(entry.language, entry.version))

    async def uninstall(self, request: AnyRequest) -> ASGIResponse:
        """Uninstall the newest matching installed package; runtimes of the host stay."""
        await require_operator(request, self._service)
        package = await find_to_uninstall(self._service, *read_selector(await self._read(request)))
        await while_connected(request, packages_of(self._service).uninstall(package.id))
        return answer_json(wire.PackageName(package.entry.language, package.entry.version))

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
    return answer_json(wire.Message("Not Found"), HTTPStatus.NOT_FOUND)


def _require_json(request: AnyRequest) -> None:
    """Require the content type that Piston requires. Raises: UnsupportedBody."""
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise UnsupportedBody("requests must be of type application/json")
