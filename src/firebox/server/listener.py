"""The listening socket: its address, and TCP options that drop dead and stalled clients."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings

UNREAD_TIMEOUT_MS = 30_000
"""A connection is closed when its client acknowledges nothing for this long. Source: tcp(7), TCP_USER_TIMEOUT."""
KEEP_ALIVE_S = 30
"""Idle time before keep-alive probes are sent. Source: tcp(7), TCP_KEEPIDLE."""


def open_listener(settings: Settings) -> socket.socket:
    """Bind the configured address. Accepted connections inherit the options set here.

    Raises: SettingsError when the address cannot be used, or is public without `require_login` or `allow_public`.
    """
    family, address = _resolve(settings)
    if not is_loopback(address[0]) and not settings.require_login and not settings.allow_public:
        raise SettingsError(
            "host",
            settings.host,
            "an address of this machine only, such as 127.0.0.1",
            source=settings.source("host"),
            hint="login is not required: set require_login (--require-login) and create users with `firebox users add`, "
            "or set allow_public (--allow-public) when access is restricted in another way",
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        place = f"{settings.host}:{settings.port}"
        raise SettingsError(
            "port", place, "an address that is free", source=settings.source("port"), hint=error.strerror or str(error)
        ) from None
    return listener


def is_loopback(address: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Return the URL that reaches a listener from this machine."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resolve(settings: Settings) -> tuple[socket.AddressFamily, Any]:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise SettingsError(
            "host", settings.host, "an address or name of this machine", source=settings.source("host"), hint=str(error)
        ) from None
    family, _, _, _, address = found[0]
    return family, address
