"""Reading requests: bodies limited in size and time, work that ends when the client disconnects, origins of WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, TypeVar, cast
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
"""Delay before a disconnect is watched for: most jobs end earlier, and watching costs a hundredth of a short one."""
DISCARDED_TIMES = 4
"""How many times the limit is read and discarded of a body that is too large. Many clients read no response before they have sent
everything; without this they would see a broken connection.
"""


async def read_json(request: AnyRequest, type_: type[T], max_body_bytes: int) -> T:
    """Read and decode a JSON body. Raises: UnsupportedBody unless the content type is JSON, BodyTooLarge, BodyTimeout,
    ClientGone, InvalidRequest.
    """
    require_json(request.headers)
    return decode(await read_json_body(request.receive, request.headers, max_body_bytes), type_)


async def read_json_body(receive: Receive, headers: Mapping[str, str], max_body_bytes: int) -> Checked:
    """Read a whole body of JSON within the limits of `json_size`. Raises: as `read_body`, and InvalidRequest."""
    body = await read_body(receive, headers, max_body_bytes, is_json=True)
    if len(body) >= MAX_VALUES:
        await asyncio.sleep(0)  # let other tasks run before all of it is parsed
    return Checked(body)


def require_json(headers: Mapping[str, str]) -> None:
    """Raise UnsupportedBody for another content type: browsers send JSON to another site only after a preflight request."""
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedBody(
            f"the content type is {content_type[:64]!r}" if content_type else "the content type is missing",
            hint="send Content-Type: application/json",
        )


async def read_body(
    receive: Receive, headers: Mapping[str, str], max_body_bytes: int, *, is_json: bool = False, timeout_s: float = BODY_TIMEOUT_S
) -> bytes:
    """Read a whole body, with or without a Content-Length.

    is_json: reject a body as soon as it exceeds the limits of `json_size`; the rest of it is discarded.
    Raises: BodyTooLarge, BodyTimeout, UnsupportedBody for a compressed one, ClientGone, InvalidRequest.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedBody(f"the content encoding is {encoding[:64]!r}", hint="send the body uncompressed")
    announced = headers.get("content-length", "")
    problem: BodyTooLarge | InvalidRequest | None = None
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > max_body_bytes):
        problem = BodyTooLarge(max_body_bytes)
        if headers.get("expect", "").lower() == "100-continue":
            raise problem  # the client has not sent any of it yet
    parts: list[bytes] = []
    size_bytes = 0
    meter: Meter | None = None
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
                if size_bytes > max_body_bytes:
                    problem = BodyTooLarge(max_body_bytes)
                if problem is not None:
                    parts.clear()
                    continue
                parts.append(part)
                if is_json and size_bytes >= MAX_VALUES:
                    try:
                        part, meter = (part, meter) if meter else (b"".join(parts), Meter())
                        meter.feed(part)
                    except InvalidRequest as error:
                        problem = error
    except TimeoutError:
        raise BodyTimeout(timeout_s) from None
    if problem is not None:
        raise problem
    return b"".join(parts)


async def while_connected(request: AnyRequest, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it when the client disconnects. Call it after the body has been read. Raises: ClientGone once
    `work` has cleaned up; and whatever `work` raises.
    """
    working = cast("asyncio.Task[Any]", asyncio.current_task())
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
    await until_gone(receive)
    working.cancel()


async def until_gone(receive: Receive) -> None:
    """Wait until the client disconnects. receive: of a request whose body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Run several coroutines until the first one ends, and cancel the others. Of two that end together the first counts.

    An interactive run's client is so read from the admission of its run on: one that leaves while it waits, or breaks the
    protocol, is noticed at once. Its input is queued by the run; while that queue is full, nothing is read.
    Raises: what the first one raised.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            # Only one error is raised; the others must not be reported as never retrieved.
            _ = task.cancelled() or task.exception()


def client_address(connection: AnyConnection) -> str:
    """Return the client's address, or "" for a connection without one."""
    return connection.client.host if connection.client else ""


def check_origin(connection: AnyConnection, allowed_origins: frozenset[str]) -> None:
    """Reject a WebSocket opened by a page of another site. allowed_origins: may contain "*". Browsers open WebSockets to other
    sites without a preflight request, but always send the page's origin. Raises: ForeignOrigin. Source: RFC 6455, section 10.2.
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
    """Remove an empty port and the scheme's default port. Source: RFC 3986, section 6.2.3."""
    usual = {"http": ":80", "https": ":443"}.get(scheme, ":")
    return place.lower().removesuffix(usual).removesuffix(":")


def read_origins(setting: str) -> frozenset[str]:
    """Parse the setting `cors_origins`."""
    return frozenset(word.rstrip("/") for word in setting.replace(",", " ").split())
