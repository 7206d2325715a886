"""httptools' request parser, without its stop at upgrades that the server does not support.

Clients may offer to switch protocols, as Java's HttpClient and curl do with `Upgrade: h2c`; a server may ignore that. httptools
instead stops after the head: the body is lost, and so is every later request of the connection. So a new parser takes over. It
is told how the body is framed, and the request is complete when its body has ended.
Source: RFC 9110, section 7.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from httptools import HttpParserUpgrade, HttpRequestParser

if TYPE_CHECKING:
    from firebox.server.connection import BoundedConnection

_FRAMING = (b"content-length", b"transfer-encoding")


class RequestParser(HttpRequestParser):
    """Replaces itself as the parser of its connection. callbacks: gets what is parsed, by default the connection."""

    def __init__(self, connection: BoundedConnection, callbacks: object = None) -> None:
        super().__init__(callbacks or connection)
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        """Parse some input. Raises: HttpParserUpgrade for a WebSocket, HttpParserError."""
        try:
            super().feed_data(data)
            return
        except HttpParserUpgrade as upgrade:
            headers = self._connection.headers
            if any(name == b"upgrade" and value.strip().lower() == b"websocket" for name, value in headers):
                raise
            rest = data[upgrade.args[0] :]
        relay = _Relay(self._connection)
        self._connection.parser = follower = RequestParser(self._connection, relay)
        framing = b"".join(b"%s: %s\r\n" % field for field in headers if field[0] in _FRAMING)
        follower.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        relay.is_muted = False
        if not relay.is_complete:
            self._connection.reopen_body()
        if rest:
            follower.feed_data(rest)


class _Relay:
    """Passes callbacks on, except those of the head that the new parser is told. is_complete: that head has no body."""

    def __init__(self, connection: BoundedConnection) -> None:
        self.is_muted = True
        self.is_complete = False
        self._complete = connection.on_message_complete
        self.on_message_begin = self._unmuted(connection.on_message_begin)
        self.on_url = self._unmuted(connection.on_url)
        self.on_header = self._unmuted(connection.on_header)
        self.on_headers_complete = self._unmuted(connection.on_headers_complete)
        self.on_body = connection.on_body

    def _unmuted(self, callback: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: None if self.is_muted else callback(*arguments)

    def on_message_complete(self) -> None:
        if self.is_muted:
            self.is_complete = True
        else:
            self._complete()
