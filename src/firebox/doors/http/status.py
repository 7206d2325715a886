"""HTTP status codes of errors: one table for every HTTP door. A door may override entries where its protocol differs."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

from firebox.domain import errors
from firebox.doors.http.refusals import BodyTimeout, BodyTooLarge, ClientGone, ForeignOrigin, TransportError, UnsupportedBody

STATUS: Mapping[type[errors.FireboxError], int] = {
    **dict.fromkeys((errors.RequestError, errors.InvalidRequest), HTTPStatus.BAD_REQUEST),
    # Not 404: the route exists and its body is wrong; 404 is for missing resources.
    errors.UnknownRuntime: HTTPStatus.BAD_REQUEST,
    **dict.fromkeys((errors.LimitTooHigh, errors.LimitNotEnforceable), HTTPStatus.BAD_REQUEST),
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    **dict.fromkeys((errors.Conflict, errors.DependencyConflict), HTTPStatus.CONFLICT),
    errors.UnusablePackage: HTTPStatus.UNPROCESSABLE_ENTITY,
    **dict.fromkeys((errors.QueueFull, errors.BodiesFull, errors.RateLimited), HTTPStatus.TOO_MANY_REQUESTS),
    **dict.fromkeys((errors.FireboxError, errors.SettingsError, errors.SandboxError), HTTPStatus.INTERNAL_SERVER_ERROR),
    **dict.fromkeys((errors.ContainerError, errors.PackageError, errors.BuildFailed), HTTPStatus.INTERNAL_SERVER_ERROR),
    **dict.fromkeys((errors.RepositoryError, errors.DownloadFailed), HTTPStatus.BAD_GATEWAY),
    **dict.fromkeys((errors.WrongChecksum, errors.NotTrusted), HTTPStatus.BAD_GATEWAY),
    **dict.fromkeys((errors.CapacityError, errors.ShuttingDown, errors.PartUnavailable), HTTPStatus.SERVICE_UNAVAILABLE),
    **{each: each.status for each in (TransportError, BodyTooLarge, BodyTimeout, UnsupportedBody, ForeignOrigin, ClientGone)},
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
