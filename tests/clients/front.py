"""A reverse proxy that does one thing: it names every body JSON, as the front of the once-public instance must have done.

pistonpy and piston-client send their JSON without saying so. Piston's own server refuses that with 415, and so does this one;
against the public instance both worked. docs/reference/piston.md shows the same as the configuration of a real proxy.
"""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast


class Front:
    """Serves in a thread for as long as the context lasts."""

    def __init__(self, behind: tuple[str, int]) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.behind = behind
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    behind: tuple[str, int]
    daemon_threads = False


class _Handler(BaseHTTPRequestHandler):
    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {"content-type": "application/json"} if body else {}
        connection = http.client.HTTPConnection(*cast(_Server, self.server).behind, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        for name in ("content-type", "retry-after"):
            if value := answer.headers.get(name):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Keep quiet."""
