"""What a server is doing, as it says itself."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
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


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll; the test's own timeout is the only one."""
    while not condition():
        time.sleep(0.02)
