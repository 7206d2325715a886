"""What every HTTP door needs: a body that is bounded in size and time, and a job that dies with its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from litestar import Request, WebSocket
from litestar.connection import ASGIConnection
from litestar.types import Receive

from firebox.domain.errors import InvalidRequest
from firebox.doors.http.json_body import decode
from firebox.doors.http.json_size import MAX_VALUES, Checked, Meter
from firebox.doors.http.refusals import BodyTimeout, BodyTooLarge, ClientGone, ForeignOrigin, UnsupportedBody

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
AnySocket = WebSocket[Any, Any, Any]
AnyConnection = ASGIConnection[Any, Any, Any, Any]

BODY_TIMEOUT_S = 60.0
WATCH_AFTER_S = 0.02
"""When to begin to watch whether a client is still there: most jobs are over by then, and watching costs as much as a hundredth
of a short one."""
DISCARDED_TIMES = 4
"""How many times the allowed size of a body that is too large is read and thrown away, so that its sender, who reads
nothing before everything is sent, gets to see the answer instead of a broken connection."""


async def read_json(request: AnyRequest, type_: type[T], max_body_bytes: int) -> T:
    """Read the body of a request as `type_`.

    Raises: UnsupportedBody unless it is JSON by name, BodyTooLarge, BodyTimeout, ClientGone, InvalidRequest.
    """
    require_json(request.headers)
    return decode(await read_json_body(request.receive, request.headers, max_body_bytes), type_)


async def read_json_body(receive: Receive, headers: Mapping[str, str], max_body_bytes: int) -> Checked:
    """Read a whole body that is to be parsed as JSON, and give up as soon as it holds more than may be parsed.

    Raises: as `read_body`, and InvalidRequest.
    """
    body = await read_body(receive, headers, max_body_bytes, is_json=True)
    if len(body) >= MAX_VALUES:
        await asyncio.sleep(0)  # others have their turn before all of it is parsed
    return Checked(body)


def require_json(headers: Mapping[str, str]) -> None:
    """Insist on `Content-Type: application/json`: a browser asks before it sends that to another site.

    Raises: UnsupportedBody.
    """
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedBody(
            f"the content type is {content_type[:64]!r}" if content_type else "the content type is missing",
            hint="send Content-Type: application/json",
        )


async def read_body(
    receive: Receive,
    headers: Mapping[str, str],
    max_body_bytes: int,
    *,
    is_json: bool = False,
    timeout_s: float = BODY_TIMEOUT_S,
) -> bytes:
    """Read a whole body, whether its length is announced or not.

    is_json: refuse one that holds more than may be parsed, as soon as that is known; the rest of it is thrown away.
    Raises: BodyTooLarge, BodyTimeout, UnsupportedBody for a compressed one, ClientGone, InvalidRequest.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedBody(f"the content encoding is {encoding[:64]!r}", hint="send the body as it is")
    announced = headers.get("content-length", "")
    too_large = announced.isdecimal() and (len(announced) > 18 or int(announced) > max_body_bytes)
    if too_large and headers.get("expect", "").lower() == "100-continue":
        raise BodyTooLarge(max_body_bytes)  # nothing is on its way yet
    parts: list[bytes] = []
    size_bytes = 0
    meter: Meter | None = None
    refusal: InvalidRequest | None = None
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            while more and size_bytes <= DISCARDED_TIMES * max_body_bytes:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                part = message["body"]
                more = message.get("more_body", False)
                size_bytes += len(part)
                too_large = too_large or size_bytes > max_body_bytes
                if too_large or refusal is not None:
                    parts.clear()
                    continue
                parts.append(part)
                if is_json and size_bytes >= MAX_VALUES:
                    try:
                        part, meter = (part, meter) if meter else (b"".join(parts), Meter())
                        meter.feed(part)
                    except InvalidRequest as error:
                        refusal = error
    except TimeoutError:
        raise BodyTimeout(timeout_s) from None
    if too_large:
        raise BodyTooLarge(max_body_bytes)
    if refusal is not None:
        raise refusal
    return b"".join(parts)


async def while_connected(request: AnyRequest, work: Awaitable[T]) -> T:
    """Wait for `work`, and cancel it when the client goes away. To be called when the body has been read.

    Raises: ClientGone, once `work` has cleaned up after itself; and what `work` raises.
    """
    working = asyncio.current_task()
    assert working is not None  # noqa: S101 - a coroutine is run by a task
    leaving: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal leaving
        leaving = asyncio.create_task(_cancel_when_gone(request.receive, working))

    beginning = asyncio.get_running_loop().call_later(WATCH_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if leaving is not None and leaving.done() and not leaving.cancelled() and not working.uncancel():
            raise ClientGone from None
        raise
    finally:
        beginning.cancel()
        if leaving is not None:
            leaving.cancel()


async def _cancel_when_gone(receive: Receive, working: asyncio.Task[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    working.cancel()


def client_address(connection: AnyConnection) -> str:
    """Name the client for fairness: its address. "" for a connection that has none."""
    return connection.client.host if connection.client else ""


def check_origin(connection: AnyConnection, allowed_origins: frozenset[str]) -> None:
    """Refuse a WebSocket that a page of another site opened. allowed_origins: may hold "*".

    Browsers send no question before they open a WebSocket to another site, but always say whose page it was.
    Raises: ForeignOrigin.
    Source: RFC 6455, section 10.2.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in allowed_origins or "*" in allowed_origins:
        return
    try:
        site = urlsplit(origin)
    except ValueError:
        raise ForeignOrigin(origin[:128]) from None
    if _without_port(site.netloc, site.scheme) != _without_port(connection.headers.get("host", ""), site.scheme):
        raise ForeignOrigin(origin[:128])


def _without_port(place: str, scheme: str) -> str:
    """Leave out a port that says nothing: an empty one, and the scheme's own. Source: RFC 3986, section 6.2.3."""
    usual = {"http": ":80", "https": ":443"}.get(scheme, ":")
    return place.lower().removesuffix(usual).removesuffix(":")


def read_origins(setting: str) -> frozenset[str]:
    """Read the setting `cors_origins`."""
    return frozenset(word.rstrip("/") for word in setting.replace(",", " ").split())
