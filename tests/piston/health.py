"""What a server is doing, as it says itself."""

from __future__ import annotations

import http.client
import json
from typing import Any

from tests.support.server import RunningServer


def health(server: RunningServer) -> Any:
    """Ask for what runs and waits."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    try:
        connection.request("GET", "/api/v1/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()
