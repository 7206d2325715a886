"""Sockets at the configured address, for every listener of a server."""

from __future__ import annotations

import socket

from firebox.settings.settings import Settings


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
