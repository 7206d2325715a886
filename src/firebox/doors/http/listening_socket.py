"""Sockets at the configured address, for every listener of a server."""

from __future__ import annotations

import socket

from firebox.domain.errors import SettingsError
from firebox.settings.settings import Settings


def bind(settings: Settings, port_setting: str) -> socket.socket:
    """Bind a TCP socket to `host` and the port in a setting. Accepted connections inherit its options. Raises: SettingsError."""
    port: int = getattr(settings, port_setting)
    try:
        found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        source = settings.source("host")
        raise SettingsError("host", settings.host, "an address or name of this machine", source=source, hint=str(error)) from None
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        place, source = f"{settings.host}:{port}", settings.source(port_setting)
        raise SettingsError(
            port_setting, place, "an address that is free", source=source, hint=error.strerror or str(error)
        ) from None
    return listener
