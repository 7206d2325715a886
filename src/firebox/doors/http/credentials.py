"""Identity of a request: its token, otherwise its address."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs

from litestar import Request, WebSocket

from firebox.doors.http.requests import AnyConnection, client_address
from firebox.service.callers import Caller
from firebox.service.service import Service

SCHEMES = ("bearer", "token")
"""Schemes that carry a token. Source: RFC 6750, section 2.1; "Token" is used by glot-run's clients."""
QUERY_PARAMETER = "access_token"
QUERY_FIELDS = 100


async def identify(connection: AnyConnection, service: Service) -> Caller:
    """Identify the client. A browser cannot set headers of a WebSocket or an EventSource: the token may be in their query string.
    Raises: Unauthenticated, Forbidden, RateLimited, PartUnavailable.
    """
    token = token_of(connection.headers)
    if token is None and _may_use_query(connection):
        token = _token_in_query(connection.scope["query_string"])
    return await service.accounts.identify(token, address=client_address(connection))


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the token in `Authorization: Bearer TOKEN`, `Token TOKEN`, or the bare token that Piston's clients send.

    headers: by lower-case names. Return None without a token; other schemes are meant for a proxy.
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
    """Return `access_token`, or "" if it is repeated or unreadable."""
    if QUERY_PARAMETER.encode() not in query:
        return None
    try:
        found = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS).get(QUERY_PARAMETER)
    except ValueError:
        return ""
    if found is None:
        return None
    return found[0] if len(found) == 1 else ""
