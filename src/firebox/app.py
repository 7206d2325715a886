"""The HTTP application: every door on one port."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from litestar import Litestar, Response
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException

from firebox.config import Settings
from firebox.doors.http import AnyRequest, read_origins
from firebox.doors.native import openapi, wire
from firebox.doors.native import routes as native
from firebox.service.service import Service

_log = structlog.get_logger("firebox.app")


def create_app(service: Service, settings: Settings) -> Litestar:
    """Combine the doors. The service's executor must be started, and outlive the application."""
    origins = read_origins(settings.cors_origins)
    return Litestar(
        route_handlers=[native.router(service, settings)],
        exception_handlers={HTTPException: _answer_http_error, Exception: _answer_bug},
        cors_config=CORSConfig(allow_origins=sorted(origins)) if origins else None,
        openapi_config=openapi.describe(),
        logging_config=None,
        # The doors read bodies themselves, with the operator's bound.
        request_max_body_size=None,
    )


def _answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[wire.ErrorBody]:
    """Answer what the router refused: an unknown path, a method that a path does not have, a parameter of a wrong type."""
    status = HTTPStatus(error.status_code)
    message = error.detail if status is HTTPStatus.BAD_REQUEST else status.phrase
    body = wire.ErrorBody(wire.ErrorDetail(f"http.{status.name.lower()}", message))
    return Response(body, status_code=status, headers=error.headers)


def _answer_bug(_request: AnyRequest, error: Exception) -> Response[wire.ErrorBody]:
    """Answer a mistake of ours without telling the client about our insides; the log has all of it."""
    _log.error("a request met a bug", exc_info=error)
    body = wire.ErrorBody(wire.ErrorDetail("internal", "the server made a mistake; its log says which"))
    return Response(body, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)
