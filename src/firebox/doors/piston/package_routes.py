"""Version 3: repositories, packages, and jobs with one package. What goes over the wire: `package_wire`; docs/packages-api.md."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from litestar import Response, route
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.response import Stream
from litestar.types import Method

from firebox.domain.errors import CapacityError, FireboxError, InvalidRequest
from firebox.doors.http.output import Pieces
from firebox.doors.http.requests import AnyRequest, read_json_body, require_json, while_connected
from firebox.doors.http.routing import Router
from firebox.doors.http.server_sent_events import STREAM_HEADERS
from firebox.doors.http.status import headers_of
from firebox.doors.piston import package_wire, wire
from firebox.doors.piston.operators import packages_of, require_operator
from firebox.doors.piston.progress_stream import follow, wanted_format
from firebox.doors.piston.request import Document, read_document, to_package_job
from firebox.service.service import Service
from firebox.settings.settings import Settings

PREFIX = "/api/v3"

_log = structlog.get_logger("firebox.piston")


def router(service: Service, settings: Settings) -> Router:
    """Make the routes of version 3."""
    door = PackageDoor(service, settings)
    package, installed = "/repos/{repository:str}/packages/{package:str}/{version:str}", "/packages/{package:str}/{version:str}"
    table: dict[str, dict[Method, Any]] = {
        "/repos": {"GET": door.list_repositories},
        "/repos/{repository:str}/packages": {"GET": door.list_packages},
        package: {"GET": door.show_package},
        f"{package}/install": {"POST": door.install},
        "/packages": {"GET": door.list_installed},
        installed: {"GET": door.show_installed, "DELETE": door.uninstall},
        f"{installed}/execute": {"POST": door.execute},
        f"{installed}/cache": {"DELETE": door.purge_cache},
    }
    return Router(
        PREFIX,
        route_handlers=[
            route(path, http_method=[method], status_code=HTTPStatus.OK, include_in_schema=False)(handler)
            for path, served in table.items()
            for method, handler in served.items()
        ],
        exception_handlers={FireboxError: answer_error, HTTPException: answer_http_error, Exception: answer_bug},
        tags=["packages"],
    )


class PackageDoor:
    """The handlers, over one service. All of them are for operators only."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings

    async def list_repositories(self, request: AnyRequest) -> Response[bytes]:
        """List the repositories of the settings; `all` is every one of them."""
        await require_operator(request, self._service)
        return _answer([package_wire.Repository(name) for name in packages_of(self._service).repositories()])

    async def list_packages(self, request: AnyRequest, repository: str) -> Response[bytes]:
        """List what a repository has. `?sync=true`: get its index anew first."""
        await require_operator(request, self._service)
        packages = packages_of(self._service)
        entries = await while_connected(request, packages.entries(repository, sync=_asks_for_sync(request)))
        return _answer([package_wire.from_entry(entry, installed=packages.is_installed(entry)) for entry in entries])

    async def show_package(self, request: AnyRequest, repository: str, package: str, version: str) -> Response[bytes]:
        """Show the newest package of a repository that a version range means."""
        await require_operator(request, self._service)
        packages = packages_of(self._service)
        entry = await packages.find(package, version, repository=repository)
        return _answer(package_wire.from_entry(entry, installed=packages.is_installed(entry)))

    async def install(self, request: AnyRequest, repository: str, package: str, version: str) -> Response[bytes] | Stream:
        """Install a package with what it depends on: one answer in the end, or a stream of how far it is."""
        await require_operator(request, self._service)
        await self._read(request)
        packages = packages_of(self._service)
        installation = packages.install(await packages.find(package, version, repository=repository))
        streamed = wanted_format(request.headers.get("accept", ""))
        if streamed is not None:
            media_type, write = streamed
            return Stream(follow(installation, write), media_type=media_type, headers=STREAM_HEADERS)
        installed = await while_connected(request, installation.result())
        return _answer(package_wire.from_installation(installation.entry, installed))

    async def list_installed(self, request: AnyRequest) -> Response[bytes]:
        """List the installed packages and what they bring."""
        await require_operator(request, self._service)
        packages = packages_of(self._service)
        return _answer([package_wire.from_installed(each, packages.runtimes_of(each)) for each in packages.installed()])

    async def show_installed(self, request: AnyRequest, package: str, version: str) -> Response[bytes]:
        """Show an installed package."""
        await require_operator(request, self._service)
        packages = packages_of(self._service)
        found = packages.get(package, version)
        return _answer(package_wire.from_installed(found, packages.runtimes_of(found)))

    async def uninstall(self, request: AnyRequest, package: str, version: str) -> Response[bytes]:
        """Uninstall a package, once nothing runs with it any more."""
        await require_operator(request, self._service)
        packages = packages_of(self._service)
        await while_connected(request, packages.uninstall(packages.removable(package, version)))
        return _answer(package_wire.PackageName(package, version))

    async def purge_cache(self, request: AnyRequest, package: str, version: str) -> Response[bytes]:
        """Forget what is kept of jobs with a package: compiled programs and outcomes."""
        await require_operator(request, self._service)
        found = packages_of(self._service).get(package, version)
        purged = await self._service.purge_cache(found)
        return _answer(package_wire.Purged(package, version, purged))

    async def execute(self, request: AnyRequest, package: str, version: str) -> Response[Any]:
        """Run a job with this very package; a client that goes away cancels it. It counts against no quota."""
        caller = await require_operator(request, self._service)
        document = await self._read(request)
        packages = packages_of(self._service)
        found = packages.get(package, version)
        language = document.get("language")
        if language is not None and not isinstance(language, str):
            raise InvalidRequest("language must be a string")
        job = to_package_job(document, await packages.runtime_of(found, language or None), self._settings)
        result = await while_connected(request, self._service.execute(job, caller, counted=False))
        pieces = Pieces()
        return pieces.answer(wire.encode(package_wire.from_result(result, found, await pieces.texts_of(result))))

    async def _read(self, request: AnyRequest) -> Document:
        """Read a body, which may be empty.

        Insisting on JSON keeps pages of other sites out: browsers ask before they send that.
        Raises: UnsupportedBody, BodyTooLarge, BodyTimeout, ClientGone, InvalidRequest.
        """
        require_json(request.headers)
        return read_document(await read_json_body(request.receive, request.headers, self._settings.max_body_bytes))


def answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Answer what the router refused. As in version 2 a method that a path does not have is a route that is not there."""
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        status = HTTPStatus.NOT_FOUND
    return Response(wire.encode(wire.Message(status.phrase)), status_code=status, media_type=MediaType.JSON)


def answer_error(_request: AnyRequest, error: FireboxError) -> Response[bytes]:
    """Answer a failure in this API's one shape."""
    status, failure = package_wire.from_error(error)
    if status >= 500 and not isinstance(error, CapacityError):
        _log.error("request failed", code=error.code, message=error.message, hint=error.hint)
    return Response(wire.encode(failure), status_code=status, headers=headers_of(error), media_type=MediaType.JSON)


def answer_bug(_request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer a mistake of ours without telling the client about our insides; the log has all of it."""
    _log.error("unhandled error in a request", exc_info=error)
    body = wire.encode(package_wire.Failure("internal error; see the server log", "internal"))
    return Response(body, status_code=HTTPStatus.INTERNAL_SERVER_ERROR, media_type=MediaType.JSON)


def _asks_for_sync(request: AnyRequest) -> bool:
    """Read `sync` of the query. Raises: InvalidRequest."""
    value = request.query_params.get("sync", "false")
    if value not in ("true", "false"):
        raise InvalidRequest("sync must be true or false")
    return value == "true"


def _answer(body: object) -> Response[bytes]:
    return Response(wire.encode(body), media_type=MediaType.JSON)
