"""The HTTP application: every door on one port."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from litestar import Litestar, Response
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException

from firebox.doors.glot import routes as glot
from firebox.doors.grounds import routes as grounds
from firebox.doors.http.hosts_and_proxies import RequestGuard
from firebox.doors.http.requests import AnyRequest, read_origins
from firebox.doors.native import routes as native
from firebox.doors.piston import package_routes
from firebox.doors.piston import routes as piston
from firebox.doors.reference.routes import Reference
from firebox.doors.runner import routes as runner
from firebox.service.service import Service
from firebox.settings.settings import Settings


def create_app(service: Service, settings: Settings) -> RequestGuard:
    """Combine the doors. The service's executor must be started and outlive the application. Raises: SettingsError."""
    origins = read_origins(settings.cors_origins)
    reference = Reference(describe)
    doors = Litestar(
        route_handlers=[
            native.router(service, settings),
            *piston.routers(service, settings),
            *glot.routers(service, settings),
            *grounds.mounts(service, settings),
            *runner.routers(service, settings),
            reference.router(),
        ],
        # For unknown paths; each door handles its own errors.
        exception_handlers={HTTPException: answer_http_error, Exception: native.ERRORS[Exception]},
        cors_config=CORSConfig(allow_origins=sorted(origins)) if origins else None,
        before_send=[reference.complete_allow],
        # Ours describes the responses of every door.
        openapi_config=None,
        logging_config=None,
        # The doors read bodies themselves, with a configurable limit.
        request_max_body_size=None,
    )
    return RequestGuard(doors, settings)


def describe() -> dict[str, Any]:
    """Describe every door as one OpenAPI document."""
    # Imported on the first request for the document, not at startup.
    import firebox
    from firebox.doors.glot import glot_openapi
    from firebox.doors.http import openapi
    from firebox.doors.native import native_openapi
    from firebox.doors.piston import package_openapi, piston_openapi
    from firebox.doors.runner import runner_openapi

    parts = (native_openapi, piston_openapi, package_openapi, glot_openapi, runner_openapi)
    words = "Runs programs in sandboxes, for clients of five systems. See the pages in docs/."
    return openapi.document("Firebox", firebox.__version__, words, [part.DOOR for part in parts])


def answer_http_error(request: AnyRequest, error: HTTPException) -> Response[Any]:
    """Answer an unknown path in the format of the door it would belong to."""
    path = request.scope["path"]
    if path.startswith(f"{package_routes.PREFIX}/"):
        return package_routes.answer_http_error(request, error)
    if runner.owns_path(path) and error.status_code == HTTPStatus.NOT_FOUND:
        return runner.answer_unknown_route()
    answer = native.answer_http_error(request, error)
    if path.startswith(f"{native.PREFIX}/"):
        return answer
    # The client could belong to any door: the others read `message`.
    detail = answer.content.error
    return Response({"error": detail, "message": detail.message}, status_code=answer.status_code, headers=error.headers)
