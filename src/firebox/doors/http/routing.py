"""What HTTP doors have in common: routers that are not copied, routes from tables, JSON responses, and error handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Self, cast

import litestar
import structlog
from litestar import Response, route
from litestar.enums import MediaType
from litestar.response.base import ASGIResponse
from litestar.types import ControllerRouterHandler, Method
from msgspec import json

from firebox.domain.errors import CapacityError, FireboxError
from firebox.doors.http.status import headers_of

ANY_METHOD = "GET HEAD POST PUT PATCH DELETE"

Handler = Callable[..., Awaitable[Any]]
Routes = Mapping[str, Mapping[str, Handler]]
"""Handlers by path and methods, such as "GET HEAD"."""
ErrorHandlers = dict[int | type[Exception], Callable[[Any, Any], Response[Any]]]

_log = structlog.get_logger("firebox.http")


class Router(litestar.Router):
    """A router of one application. Litestar deep-copies routers so that they can be reused: a tenth of the startup time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the router itself, with its handlers and their service."""
        return self


def handlers_of(routes: Routes, refuse: Callable[[list[str]], Handler] | None = None) -> list[ControllerRouterHandler]:
    """Create Litestar's handlers. refuse: makes the handler of the methods that a path does not support, given those it does."""
    handlers: list[ControllerRouterHandler] = []
    for path, by_methods in routes.items():
        served = [(methods.split(), handler) for methods, handler in by_methods.items()]
        taken = [method for methods, _ in served for method in methods]
        rest = [method for method in ANY_METHOD.split() if method not in taken]
        if refuse is not None and rest:
            served.append((rest, refuse(taken)))
        handlers += [
            route(path, http_method=cast("list[Method]", methods), status_code=HTTPStatus.OK, include_in_schema=False)(handler)
            for methods, handler in served
        ]
    return handlers


def answer_json(document: object, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> ASGIResponse:
    """Create a JSON response."""
    return ASGIResponse(body=json.encode(document), status_code=status, media_type=MediaType.JSON, headers=headers)


def error_handlers(
    body_of: Callable[[FireboxError], tuple[int, object]],
    bug: object,
    *,
    scheme: str = "Bearer",
    expected: tuple[type[FireboxError], ...] = (CapacityError,),
    logged: tuple[str, ...] = ("code", "message"),
) -> ErrorHandlers:
    """Create a door's handlers of errors.

    body_of: status and body. bug: body for an unexpected error, without details. scheme: of tokens. expected: errors that are no
    failures of the server, whatever their status. logged: attributes of an error.
    """

    def answer_error(_request: Any, error: FireboxError) -> Response[Any]:
        status, body = body_of(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, expected):
            _log.error("request failed", **{name: getattr(error, name) for name in logged})
        return Response(body, status_code=status, headers=headers_of(error, scheme), media_type=MediaType.JSON)

    def answer_bug(_request: Any, error: Exception) -> Response[Any]:
        _log.error("unhandled error in a request", exc_info=error)
        return Response(bug, status_code=HTTPStatus.INTERNAL_SERVER_ERROR, media_type=MediaType.JSON)

    return {FireboxError: answer_error, Exception: answer_bug}
