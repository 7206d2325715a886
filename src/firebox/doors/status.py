"""What HTTP calls each failure: one table for every HTTP door, which may differ from it where its protocol does."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from firebox import errors
from firebox.doors import refusals

STATUS: Mapping[type[errors.FireboxError], int] = {
    errors.FireboxError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    # Not 404: the route exists and its body is at fault; 404 is for a thing that is not there.
    errors.UnknownRuntime: HTTPStatus.BAD_REQUEST,
    errors.LimitTooHigh: HTTPStatus.BAD_REQUEST,
    errors.LimitNotEnforceable: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.CapacityError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ShuttingDown: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PartUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SettingsError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ContainerError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SandboxError: HTTPStatus.INTERNAL_SERVER_ERROR,
    **{
        refusal: refusal.status
        for refusal in (
            refusals.TransportError,
            refusals.BodyTooLarge,
            refusals.BodyTimeout,
            refusals.UnsupportedBody,
            refusals.ForeignOrigin,
            refusals.ClientGone,
        )
    },
}
"""HTTP status of every error; a test walks the classes."""


def status_of(error: errors.FireboxError, table: Mapping[type[errors.FireboxError], int] = STATUS) -> int:
    """Look a failure up: its own class, or the nearest one above it that the table has."""
    return next(table[class_] for class_ in type(error).__mro__ if class_ in table)
