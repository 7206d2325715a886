"""Fixtures for the command line, which runs as a process, as for a user."""

from __future__ import annotations

from tests.support.server import client, server, start_server

__all__ = ["client", "server", "start_server"]
