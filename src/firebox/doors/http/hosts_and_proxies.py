"""Middleware before every HTTP door: validates the Host header, and trusts X-Forwarded-For only from configured proxies.

A page on any site can point its own host name at 127.0.0.1 and then talk to a local server as if to its own (DNS rebinding). The
Host header still carries the page's name, so a server on loopback accepts loopback names only, unless configured otherwise.

Not uvicorn's ProxyHeadersMiddleware: it misses an IPv4 proxy that connects as `::ffff:10.0.0.1`, takes `unknown` and oversized
words for addresses of clients, follows any number of hops, accepts malformed networks, and also trusts X-Forwarded-Proto. The
gRPC door needs the same rule for its metadata, and uvicorn offers it as ASGI middleware only.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from firebox.domain.errors import BodiesFull
from firebox.doors.http.client_limits import UNCOUNTED_BYTES, ClientLimits, Reservation, answer_bytes, is_counted
from firebox.doors.http.status import headers_of
from firebox.settings.settings import Settings

ANY = "*"
SENT_BYTES = 256 * 1024
"""How much of a response body is passed to a connection at once."""
FORWARDED_BYTES = 4096
FORWARDED_HOPS = 32
"""Limits on the part of X-Forwarded-For that is parsed, counted from its end."""

# The port may be empty. Source: RFC 3986, section 3.2.3.
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{0,5})?")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_log = structlog.get_logger("firebox.front")


class RequestGuard:
    """ASGI middleware: rejects foreign Host headers, applies X-Forwarded-For, and limits the memory that large request and
    response bodies hold.

    limits: shared with the listener, which counts connections and WebSocket messages in it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = HostNames(settings)
        self._proxies = Proxies(settings)
        self.limits = ClientLimits(settings, self._proxies.include)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            problem = self._hosts.problem(_values(scope["headers"], b"host"))
            if problem:
                _log.info("host rejected", reason=problem)
                await _refuse(scope, send, problem)
                return
            if self._proxies:
                self._proxies.name_client(scope)
            if scope["type"] == ScopeType.HTTP:
                await self._serve_counted(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve_counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. A large body counts until its response starts: the job made of it may be queued as long. A large
        response counts until it is sent.
        """
        body: Reservation | None = None
        answer: Reservation | None = None
        is_refused = False
        client = scope["client"]
        address = client[0] if client else ""
        if is_counted(scope["headers"]):
            body = self.limits.memory.open(address)
            receive = body.metered(receive, self.limits.max_body_bytes)

        async def send_counted(message: Any) -> None:
            nonlocal answer, is_refused
            if message["type"] == "http.response.start":
                if body is not None:
                    body.close()
                size_bytes = answer_bytes(message["headers"])
                if size_bytes > UNCOUNTED_BYTES:
                    answer = self.limits.memory.open(address)
                    try:
                        answer.set(size_bytes, allow_any_size=True)
                    except BodiesFull as error:
                        is_refused = True
                        await _answer(send, HTTPStatus.TOO_MANY_REQUESTS, error.code, error.message, headers_of(error))
            elif len(message.get("body", b"")) > SENT_BYTES and not is_refused:
                await _send_in_parts(send, message)
                return
            if not is_refused:
                await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            for reservation in (body, answer):
                if reservation is not None:
                    reservation.close()


class HostNames:
    """The names in `allowed_hosts`, and loopback names: no other site can use these."""

    def __init__(self, settings: Settings) -> None:
        names = frozenset(name.lower().rstrip(".") for name in settings.allowed_hosts.replace(",", " ").split())
        self._exact = names
        self._endings = tuple(name[1:] for name in names if name.startswith("*."))
        self._any = ANY in names or (not names and not is_loopback_host(settings.host))
        self._allows = lru_cache(maxsize=1024)(self._decide)

    def problem(self, values: list[bytes]) -> str:
        """Return what is wrong with the Host headers of a request, or "". Source: RFC 9110, section 7.2, and RFC 9112, section
        3.2: exactly one is required.
        """
        if self._any:
            return ""
        if len(values) != 1:
            return "the Host header is missing" if not values else "there is more than one Host header"
        if len(values[0]) > 260 or not self._allows(values[0]):
            return f"this server does not serve the host {values[0][:64].decode('latin-1')!r}"
        return ""

    def _decide(self, value: bytes) -> bool:
        matched = _HOST.fullmatch(value.decode("latin-1").strip())
        if matched is None:
            return False
        name = matched["name"].lower().rstrip(".")
        return name in self._exact or name.endswith(self._endings or ("\0",)) or is_loopback_name(name)


class Proxies:
    """The networks in `trusted_proxies`. False if there are none."""

    def __init__(self, settings: Settings) -> None:
        words = settings.trusted_proxies
        try:
            self._networks = tuple(ipaddress.ip_network(word, strict=False) for word in words.replace(",", " ").split())
        except ValueError as error:
            allowed = "addresses or networks such as 10.0.0.0/8, separated by commas"
            raise settings.refused("trusted_proxies", allowed=allowed, hint=str(error)) from None

    def __bool__(self) -> bool:
        return bool(self._networks)

    def include(self, peer: str) -> bool:
        """Return whether an address belongs to a trusted proxy."""
        address = _read_address(peer) if self else None
        return address is not None and self._trusts(address)

    def name_client(self, scope: Scope) -> None:
        """Replace a trusted proxy's address in the scope with that of the client."""
        fields = cast("MutableMapping[str, Any]", scope)
        peer = str((fields.get("client") or ("",))[0])
        found = self.client_of(peer, _values(scope["headers"], b"x-forwarded-for"))
        if found != peer:
            fields["client"] = (found, 0)

    def client_of(self, peer: str, forwarded: Iterable[bytes]) -> str:
        """Return the address of the client: that of the nearest hop that is not a trusted proxy.

        Read from the right: each proxy appends the address of its own peer, so anything left of the first untrusted hop may be
        forged. An unreadable hop ends the search at the proxy that wrote it.
        """
        address = _read_address(peer)
        if address is None:
            return peer
        for word in _from_the_right(forwarded):
            if not self._trusts(address):
                break
            hop = _read_address(word)
            if hop is None:
                break
            address = hop
        return str(address)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def is_loopback_host(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached from this machine only."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        return True
    addresses = [_read_address(str(address[0]).partition("%")[0]) for *_, address in found[:1]]
    return all(address is not None and address.is_loopback for address in addresses)


def is_loopback_name(name: str) -> bool:
    """Return whether a Host header names this machine for every client. Source: RFC 6761, section 6.3."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _read_address(name.strip("[]"))
    return address is not None and address.is_loopback


def _read_address(text: str) -> _Address | None:
    """Parse an address as proxies write it: with or without a port, IPv6 with or without brackets."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if len(text) > 45 or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _from_the_right(values: Iterable[bytes]) -> Iterator[str]:
    """Return the words of all X-Forwarded-For headers, last first, up to the limits above."""
    text = b",".join(values)[-FORWARDED_BYTES:].decode("latin-1")
    return reversed(text.split(",")[-FORWARDED_HOPS:])


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


async def _send_in_parts(send: Send, message: Any) -> None:
    """Send a large body in parts, so that no more is buffered than the client takes."""
    body = message["body"]
    for start in range(0, len(body), SENT_BYTES):
        more = start + SENT_BYTES < len(body) or message.get("more_body", False)
        await send({"type": "http.response.body", "body": body[start : start + SENT_BYTES], "more_body": more})


async def _refuse(scope: Scope, send: Send, problem: str) -> None:
    """Reject a request before any door handles it. A WebSocket handshake can only be closed."""
    if scope["type"] == ScopeType.WEBSOCKET:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    hint = "use another host name, or ask the operator to add this one to allowed_hosts"
    await _answer(send, HTTPStatus.MISDIRECTED_REQUEST, "http.misdirected_request", problem, {}, hint)


async def _answer(send: Send, status: HTTPStatus, code: str, message: str, headers: Mapping[str, str], hint: str = "") -> None:
    """Send an error in the format of all doors."""
    error = {"code": code, "message": message, **({"hint": hint} if hint else {})}
    body = json.dumps({"error": error, "message": f"{message}: {hint}" if hint else message}).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    fields += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})
