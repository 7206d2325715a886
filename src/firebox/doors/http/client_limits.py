"""Limits on connections and memory per client and in total: open connections, request bodies and messages being received, and
responses that clients do not read.

A client that never ends its request or never reads its response must not exhaust the memory. Clients are told apart by address.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from litestar.types import Receive

from firebox.domain.errors import BodiesFull
from firebox.service.callers import rate_limit_key
from firebox.settings.settings import Settings

UNCOUNTED_BYTES = 64 * 1024
"""Bodies and messages up to this size are not counted: connections are limited, and most requests are that small."""


class ClientLimits:
    """All limits of one server. is_proxy: whether an address belongs to a trusted proxy, which connects for many clients."""

    def __init__(self, settings: Settings, is_proxy: Callable[[str], bool]) -> None:
        self.max_body_bytes = settings.max_body_bytes
        self.uncounted_bytes = min(UNCOUNTED_BYTES, settings.max_body_bytes)
        self.connections = ConnectionLimit(settings, is_proxy)
        # A body of the maximum size must always fit.
        self.memory = MemoryBudget(
            allowed=max(settings.held_bytes, settings.max_body_bytes),
            allowed_per_client=max(settings.held_bytes_per_client, settings.max_body_bytes),
        )


class ConnectionLimit:
    """Limits the open connections of a listener. is_proxy: as for `ClientLimits`."""

    def __init__(self, settings: Settings, is_proxy: Callable[[str], bool]) -> None:
        # Runs need file descriptors too.
        self._allowed = min(settings.connections, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._allowed_per_client = settings.connections_per_client
        self._is_proxy = is_proxy
        self._open = 0
        self._per_client: Counter[str] = Counter()

    def open(self, address: str) -> Callable[[], None] | None:
        """Count a connection. Return a function that ends the count (idempotent), or None at the limit."""
        client = rate_limit_key(address)
        is_full = self._per_client[client] >= self._allowed_per_client and not self._is_proxy(address)
        if self._open >= self._allowed or is_full:
            _drop_zero(self._per_client, client)
            return None
        self._open += 1
        self._per_client[client] += 1
        counted = ExitStack()
        counted.callback(self._close, client)
        return counted.close

    def _close(self, client: str) -> None:
        self._open -= 1
        self._per_client[client] -= 1
        _drop_zero(self._per_client, client)


class MemoryBudget:
    """Memory budget for received data and data to be sent."""

    def __init__(self, *, allowed: int, allowed_per_client: int) -> None:
        self.allowed = allowed
        self.allowed_per_client = allowed_per_client
        self.used_bytes = 0
        self.per_client: Counter[str] = Counter()

    def open(self, address: str) -> Reservation:
        """Open a reservation for a body or a connection."""
        return Reservation(self, rate_limit_key(address))


class Reservation:
    """Memory reserved for one body or one connection."""

    def __init__(self, counted: MemoryBudget, client: str) -> None:
        self._counted = counted
        self._client = client
        self._bytes = 0

    def set(self, size_bytes: int, *, allow_any_size: bool = False) -> None:
        """Change the size of the reservation.

        allow_any_size: for responses, which may exceed the limits on requests: allow any size if nothing else is reserved.
        Raises: BodiesFull when the budget is exhausted; the reservation then stays as it was.
        """
        counted, more = self._counted, size_bytes - self._bytes
        if more > 0:
            of_client = counted.per_client[self._client]
            _drop_zero(counted.per_client, self._client)
            if of_client + more > counted.allowed_per_client and not (allow_any_size and of_client == self._bytes):
                raise BodiesFull("data held for this client", counted.allowed_per_client)
            if counted.used_bytes + more > counted.allowed and not (allow_any_size and counted.used_bytes == self._bytes):
                raise BodiesFull("data held for all clients", counted.allowed)
        counted.used_bytes += more
        counted.per_client[self._client] += more
        self._bytes = size_bytes
        _drop_zero(counted.per_client, self._client)

    def close(self) -> None:
        """Release the reservation."""
        self.set(0)

    def metered(self, receive: Receive, most_bytes: int) -> Receive:
        """Wrap `receive` to reserve memory for a body as it arrives. most_bytes: anything beyond is not kept in memory."""
        received = 0

        async def count() -> Any:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message["body"])
                self.set(min(received, most_bytes))
            return message

        return count


def is_counted(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a request's body may be large enough to be counted."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and _is_large(value)) for name, value in headers)


def answer_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return the Content-Length of a response, or 0 without one."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _is_large(length: bytes) -> bool:
    return len(length) > 5 or not length.isdigit() or int(length) > UNCOUNTED_BYTES


def _drop_zero(counts: Counter[str], key: str) -> None:
    if not counts[key]:
        del counts[key]
