"""HTTP status codes of errors: one table for every HTTP door. A door may override entries where its protocol differs."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

from firebox.domain import errors
from firebox.doors.http.refusals import BodyTimeout, BodyTooLarge, ClientGone, ForeignOrigin, TransportError, UnsupportedBody

STATUS: Mapping[type[errors.FireboxError], int] = {
    errors.FireboxError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    # Not 404: the route exists and its body is wrong; 404 is for missing resources.
    errors.UnknownRuntime: HTTPStatus.BAD_REQUEST,
    errors.LimitTooHigh: HTTPStatus.BAD_REQUEST,
    errors.LimitNotEnforceable: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.CapacityError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.BodiesFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PartUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SettingsError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ContainerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.PackageError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RepositoryError: HTTPStatus.BAD_GATEWAY,
    errors.DownloadFailed: HTTPStatus.BAD_GATEWAY,
    errors.WrongChecksum: HTTPStatus.BAD_GATEWAY,
    errors.NotTrusted: HTTPStatus.BAD_GATEWAY,
    errors.UnusablePackage: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DependencyConflict: HTTPStatus.CONFLICT,
    errors.BuildFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SandboxError: HTTPStatus.INTERNAL_SERVER_ERROR,
    **{
        class_: class_.status
        for class_ in (TransportError, BodyTooLarge, BodyTimeout, UnsupportedBody, ForeignOrigin, ClientGone)
    },
}
"""HTTP status of every error; a test walks the classes."""


def status_of(error: errors.FireboxError, table: Mapping[type[errors.FireboxError], int] = STATUS) -> int:
    """Return the status of an error: that of its class, or of its nearest base class in the table."""
    return next(table[class_] for class_ in type(error).__mro__ if class_ in table)


def headers_of(error: errors.FireboxError, scheme: str = "Bearer") -> dict[str, str]:
    """Return Retry-After (whole seconds) or WWW-Authenticate for an error. Source: RFC 9110, sections 10.2.3 and 11.6.1."""
    if isinstance(error, errors.CapacityError):
        return {"Retry-After": str(max(1, ceil(error.retry_after_s)))}
    if isinstance(error, errors.Unauthenticated):
        return {"WWW-Authenticate": f'{scheme} realm="firebox"'}
    return {}
