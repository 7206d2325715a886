"""Sockets at the configured address, for every listener of a server. TCP options drop dead and stalled clients."""

from __future__ import annotations

import ipaddress
import socket

from firebox.settings.settings import Settings

UNREAD_TIMEOUT_MS = 30_000
"""A connection is closed when its client acknowledges nothing for this long. Source: tcp(7), TCP_USER_TIMEOUT."""
KEEP_ALIVE_S = 30
"""Idle time before keep-alive probes are sent. Source: tcp(7), TCP_KEEPIDLE."""


def bind(settings: Settings, port_setting: str) -> socket.socket:
    """Bind a TCP socket to `host` and the port in a setting. Accepted connections inherit its options. Raises: SettingsError."""
    port: int = getattr(settings, port_setting)
    try:
        found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise settings.refused("host", allowed="an address or name of this machine", hint=str(error)) from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        place, hint = f"{settings.host}:{port}", error.strerror or str(error)
        raise settings.refused(port_setting, value=place, allowed="an address that is free", hint=hint) from None
    return listener


def open_listener(settings: Settings) -> socket.socket:
    """Bind the configured address. Accepted connections inherit the options set here. Raises: SettingsError when the address
    cannot be used, or is public without `require_login` or `allow_public`.
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
