"""httptools' request parser, without its stop at upgrades that the server does not support.

Clients may offer to switch protocols, as Java's HttpClient and curl do with `Upgrade: h2c`; a server may ignore that. httptools
instead stops after the head: the body is lost, and so is every later request of the connection. So a new parser takes over. It
is told how the body is framed, and the request is complete when its body has ended.
Source: RFC 9110, section 7.8.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from httptools import HttpParserUpgrade, HttpRequestParser

_FRAMING = (b"content-length", b"transfer-encoding")


class Upgradable(Protocol):
    """What the parser needs of its connection, beside httptools' callbacks."""

    @property
    def offers_websocket(self) -> bool:
        """Whether the current request asks for a WebSocket, which is supported."""
        ...

    @property
    def fields(self) -> Iterable[tuple[bytes, bytes]]:
        """The header fields of the current request, with names in lower case."""
        ...

    def reopen_body(self) -> None:
        """Expect the body of a request that was reported as complete."""
        ...


class RequestParser:
    """Has the methods of `HttpRequestParser` that uvicorn calls. connection: gets httptools' callbacks."""

    def __init__(self, connection: Upgradable) -> None:
        self._connection = connection
        self._parser = HttpRequestParser(connection)

    def feed_data(self, data: memoryview) -> None:
        """Parse some input. Raises: HttpParserUpgrade for a WebSocket, HttpParserError."""
        while True:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                if self._connection.offers_websocket:
                    raise
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            else:
                return
            if not data:
                return

    def get_http_version(self) -> str:
        return str(self._parser.get_http_version())

    def get_method(self) -> bytes:
        return bytes(self._parser.get_method())

    def should_keep_alive(self) -> bool:
        return bool(self._parser.should_keep_alive())

    def should_upgrade(self) -> bool:
        return bool(self._parser.should_upgrade())

    def _ignore_upgrade(self) -> None:
        """Continue with a new parser after the head of a request."""
        relay = _Relay(self._connection)
        self._parser = HttpRequestParser(relay)
        framing = b"".join(b"%s: %s\r\n" % field for field in self._connection.fields if field[0] in _FRAMING)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        relay.is_muted = False
        if not relay.is_complete:
            self._connection.reopen_body()


class _Relay:
    """Passes callbacks on, except those of the head that the new parser is told. is_complete: that head has no body."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_muted = True
        self.is_complete = False

    def on_message_begin(self) -> None:
        if not self.is_muted:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_muted:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_muted:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_muted:
            self._connection.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        if self.is_muted:
            self.is_complete = True
        else:
            self._connection.on_message_complete()
