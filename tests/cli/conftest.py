"""The command line runs as a process of its own, as a user would start it."""

from __future__ import annotations

from tests.support.server import client, server, start_server

__all__ = ["client", "server", "start_server"]
