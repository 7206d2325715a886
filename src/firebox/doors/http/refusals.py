"""Errors of HTTP requests before their content is read. Every HTTP door answers them with `status`."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

from firebox.domain.errors import RequestError


class TransportError(RequestError):
    """The request was rejected before it reached the service. status: the HTTP status code."""

    code = "http"
    status: ClassVar[int] = HTTPStatus.BAD_REQUEST


class BodyTooLarge(TransportError):
    """The body is larger than `max_body_bytes`."""

    code = "http.body_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE

    def __init__(self, allowed_bytes: int) -> None:
        super().__init__(
            f"the body is larger than {allowed_bytes} bytes", hint="send less, or ask the operator to raise max_body_bytes"
        )
        self.allowed_bytes = allowed_bytes


class BodyTimeout(TransportError):
    """The body did not arrive in time."""

    code = "http.body_timeout"
    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, allowed_s: float) -> None:
        super().__init__(f"the body did not arrive within {allowed_s:g} seconds")
        self.allowed_s = allowed_s


class UnsupportedBody(TransportError):
    """The body has an unsupported media type or content encoding."""

    code = "http.unsupported_body"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class ForeignOrigin(TransportError):
    """A page of another site opened a WebSocket. Browsers allow that without a preflight request."""

    code = "http.foreign_origin"
    status = HTTPStatus.FORBIDDEN

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"pages of {origin} may not connect", hint="the operator can allow the site with the setting cors_origins"
        )


class ClientGone(TransportError):
    """The client disconnected before its response was ready. The response is not read by anything."""

    code = "http.client_gone"
    status = 499

    def __init__(self) -> None:
        super().__init__("the client disconnected")
