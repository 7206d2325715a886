"""Who a request comes from: its token, else its address."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from litestar import Request, WebSocket

from firebox.doors.http.requests import AnyConnection, client_address
from firebox.service.callers import Caller
from firebox.service.service import Service

SCHEMES = ("bearer", "token")
"""Schemes that carry a token. Source: RFC 6750, section 2.1; "Token" is what glot-run's clients write."""
QUERY_PARAMETER = "access_token"
QUERY_FIELDS = 100


async def identify(connection: AnyConnection, service: Service) -> Caller:
    """Find out who asks. Browsers cannot set headers of a WebSocket or an EventSource: these may bring the token in the query.

    Raises: Unauthenticated, Forbidden, RateLimited, PartUnavailable.
    """
    token = token_of(connection.headers)
    if token is None and _may_use_query(connection):
        token = _token_in_query(connection.scope["query_string"])
    return await service.accounts.identify(token, address=client_address(connection))


def token_of(headers: Mapping[str, str]) -> str | None:
    """Read the token out of headers: `Authorization: Bearer TOKEN`, `Token TOKEN`, or the token alone, as Piston's clients do.

    headers: by lower-case names. None: there is none; another scheme is somebody else's, a proxy's for one.
    """
    value = headers.get("authorization")
    if value is None:
        return None
    scheme, separator, token = value.strip().partition(" ")
    if not separator:
        return scheme if scheme.lower() not in SCHEMES else ""
    return token.strip() if scheme.lower() in SCHEMES else None


def _may_use_query(connection: AnyConnection) -> bool:
    if isinstance(connection, Request):
        return connection.method == "GET" and "text/event-stream" in connection.headers.get("accept", "").lower()
    return isinstance(connection, WebSocket)


def _token_in_query(query: bytes) -> str | None:
    """Read `access_token`; "" when it is there more than once or cannot be read."""
    if QUERY_PARAMETER.encode() not in query:
        return None
    try:
        found = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS).get(QUERY_PARAMETER)
    except ValueError:
        return ""
    if found is None:
        return None
    return found[0] if len(found) == 1 else ""
