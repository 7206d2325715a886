"""The listening socket: its address, and TCP options that drop dead and stalled clients."""

from __future__ import annotations

import ipaddress
import socket

from firebox.doors.http.listening_socket import bind
from firebox.settings.settings import Settings

UNREAD_TIMEOUT_MS = 30_000
"""A connection is closed when its client acknowledges nothing for this long. Source: tcp(7), TCP_USER_TIMEOUT."""
KEEP_ALIVE_S = 30
"""Idle time before keep-alive probes are sent. Source: tcp(7), TCP_KEEPIDLE."""


def open_listener(settings: Settings) -> socket.socket:
    """Bind the configured address. Accepted connections inherit the options set here.

    Raises: SettingsError when the address cannot be used, or is public without `require_login` or `allow_public`.
    """
    listener = bind(settings, "port")
    if not is_loopback(listener.getsockname()[0]) and not settings.require_login and not settings.allow_public:
        listener.close()
        hint = "login is not required: set require_login (--require-login) and create users with `firebox users add`, "
        hint += "or set allow_public (--allow-public) when access is restricted in another way"
        raise settings.refused("host", allowed="an address of this machine only, such as 127.0.0.1", hint=hint)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT_MS)
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
