"""Piston v3: repositories, packages and jobs for a specific package. Wire format: `package_wire`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from litestar import Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException
from litestar.response import Stream
from litestar.response.base import ASGIResponse

from firebox.domain.errors import InvalidRequest, PartUnavailable
from firebox.doors.http.credentials import identify
from firebox.doors.http.output import Pieces
from firebox.doors.http.requests import AnyRequest, read_json_body, require_json, while_connected
from firebox.doors.http.routing import Router, Routes, answer_json, error_handlers, handlers_of
from firebox.doors.http.server_sent_events import STREAM_HEADERS
from firebox.doors.piston import package_wire, wire
from firebox.doors.piston.progress_stream import follow, wanted_format
from firebox.doors.piston.request import Document, read_document, to_package_job
from firebox.service.callers import Caller
from firebox.service.packages import Packages
from firebox.service.service import Service
from firebox.settings.settings import Settings

PREFIX = "/api/v3"
FORWARDING_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of forwarded requests: their real sender is unknown, although the proxy is on this machine."""


def router(service: Service, settings: Settings) -> Router:
    door = PackageDoor(service, settings)
    package, installed = "/repos/{repository:str}/packages/{package:str}/{version:str}", "/packages/{package:str}/{version:str}"
    routes: Routes = {
        "/repos": {"GET": door.list_repositories},
        "/repos/{repository:str}/packages": {"GET": door.list_packages},
        package: {"GET": door.show_package},
        f"{package}/install": {"POST": door.install},
        "/packages": {"GET": door.list_installed},
        installed: {"GET": door.show_installed, "DELETE": door.uninstall},
        f"{installed}/execute": {"POST": door.execute},
        f"{installed}/cache": {"DELETE": door.purge_cache},
    }
    bug = package_wire.Failure("internal error; see the server log", "internal")
    errors = error_handlers(package_wire.from_error, bug, logged=("code", "message", "hint"))
    return Router(PREFIX, route_handlers=handlers_of(routes), exception_handlers={**errors, HTTPException: answer_http_error})


class PackageDoor:
    """Request handlers. All require an operator."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings

    async def list_repositories(self, request: AnyRequest) -> ASGIResponse:
        packages = await self._packages(request)
        return answer_json([package_wire.Repository(name) for name in packages.repositories()])

    async def list_packages(self, request: AnyRequest, repository: str) -> ASGIResponse:
        """List the packages of a repository. `?sync=true`: fetch its index first."""
        packages = await self._packages(request)
        entries = await while_connected(request, packages.entries(repository, sync=_asks_for_sync(request)))
        return answer_json([package_wire.from_entry(entry, installed=packages.is_installed(entry)) for entry in entries])

    async def show_package(self, request: AnyRequest, repository: str, package: str, version: str) -> ASGIResponse:
        """Return the newest matching package of a repository."""
        packages = await self._packages(request)
        entry = await packages.find(package, version, repository=repository)
        return answer_json(package_wire.from_entry(entry, installed=packages.is_installed(entry)))

    async def install(self, request: AnyRequest, repository: str, package: str, version: str) -> Response[Any]:
        """Install a package with its dependencies. Answer at the end, or with a stream of progress."""
        packages = await self._packages(request)
        await self._read(request)
        installation = packages.install(await packages.find(package, version, repository=repository))
        streamed = wanted_format(request.headers.get("accept", ""))
        if streamed is not None:
            media_type, write = streamed
            return Stream(follow(installation, write), media_type=media_type, headers=STREAM_HEADERS)
        installed = await while_connected(request, installation.result())
        return Response(package_wire.from_installation(installation.entry, installed), media_type=MediaType.JSON)

    async def list_installed(self, request: AnyRequest) -> ASGIResponse:
        packages = await self._packages(request)
        return answer_json([package_wire.from_installed(each, packages.runtimes_of(each)) for each in packages.installed()])

    async def show_installed(self, request: AnyRequest, package: str, version: str) -> ASGIResponse:
        packages = await self._packages(request)
        found = packages.get(package, version)
        return answer_json(package_wire.from_installed(found, packages.runtimes_of(found)))

    async def uninstall(self, request: AnyRequest, package: str, version: str) -> ASGIResponse:
        """Uninstall a package, after waiting for active runs."""
        packages = await self._packages(request)
        await while_connected(request, packages.uninstall(packages.id_to_uninstall(package, version)))
        return answer_json(package_wire.PackageName(package, version))

    async def purge_cache(self, request: AnyRequest, package: str, version: str) -> ASGIResponse:
        """Purge the job cache of a package: compiled programs and results."""
        found = (await self._packages(request)).get(package, version)
        purged = await self._service.purge_cache(found)
        return answer_json(package_wire.Purged(package, version, purged))

    async def execute(self, request: AnyRequest, package: str, version: str) -> Response[Any]:
        """Run a job with a specific package. A disconnect cancels it. Does not count against any quota."""
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

    async def _packages(self, request: AnyRequest) -> Packages:
        """Authorize the request and return the package service. Raises: as `require_operator` and `packages_of`."""
        await require_operator(request, self._service)
        return packages_of(self._service)

    async def _read(self, request: AnyRequest) -> Document:
        """Read a body, which may be empty. Requiring JSON makes browsers send a preflight request from another site."""
        require_json(request.headers)
        return read_document(await read_json_body(request.receive, request.headers, self._settings.max_body_bytes))


async def require_operator(request: AnyRequest, service: Service) -> Caller:
    """Allow admins; if accounts are disabled, allow clients on this machine. Raises: as `identify`, and Forbidden for others."""
    caller = await identify(request, service)
    service.accounts.require_operator(caller, forwarded=any(name in request.headers for name in FORWARDING_HEADERS))
    return caller


def packages_of(service: Service) -> Packages:
    """Return the package service. Raises: PartUnavailable if this server has none."""
    if service.packages is None:
        raise PartUnavailable("package store", detail="this server has none")
    return service.packages


def answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Convert a router error to a response. As in v2, an unsupported method is a 404."""
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        status = HTTPStatus.NOT_FOUND
    return Response(wire.encode(wire.Message(status.phrase)), status_code=status, media_type=MediaType.JSON)


def _asks_for_sync(request: AnyRequest) -> bool:
    """Parse the query parameter `sync`. Raises: InvalidRequest."""
    value = request.query_params.get("sync", "false")
    if value not in ("true", "false"):
        raise InvalidRequest("sync must be true or false")
    return value == "true"
