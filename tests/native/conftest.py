"""Fixtures for the native API: a real server over real sockets."""

from __future__ import annotations

from tests.support.server import client, server, start_server

__all__ = ["client", "server", "start_server"]
