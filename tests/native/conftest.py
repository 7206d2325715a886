"""The native API's tests talk to a real server over real sockets."""

from __future__ import annotations

from tests.support.server import client, server, start_server

__all__ = ["client", "server", "start_server"]
