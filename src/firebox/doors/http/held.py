"""What clients make the server hold: connections, what they have sent of bodies and messages, and answers that they do not take.

A client that sends much and never ends it, or takes no answers, must not take the memory that others need. Counted for each
client, which is an address, and for all of them.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from litestar.types import Receive

from firebox.domain.errors import BodiesFull
from firebox.service.callers import countable
from firebox.settings.settings import Settings

UNCOUNTED_BYTES = 64 * 1024
"""A body or message up to this size is not counted: connections are bounded, and most of what clients send is that small."""


class Bounds:
    """Everything that is counted. is_proxy: whether an address is that of a trusted proxy, who calls for many clients."""

    def __init__(self, settings: Settings, is_proxy: Callable[[str], bool]) -> None:
        self.max_body_bytes = settings.max_body_bytes
        self.uncounted_bytes = min(UNCOUNTED_BYTES, settings.max_body_bytes)
        self.connections = Connections(settings, is_proxy)
        # One body of the largest size can always be sent.
        self.held = HeldBytes(
            allowed=max(settings.held_bytes, settings.max_body_bytes),
            allowed_per_client=max(settings.held_bytes_per_client, settings.max_body_bytes),
        )


class Connections:
    """Counts the open connections of a listener. is_proxy: as for `Bounds`."""

    def __init__(self, settings: Settings, is_proxy: Callable[[str], bool]) -> None:
        # Runs need descriptors too.
        self._allowed = min(settings.connections, max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
        self._allowed_per_client = settings.connections_per_client
        self._is_proxy = is_proxy
        self._open = 0
        self._per_client: Counter[str] = Counter()

    def open(self, address: str) -> Callable[[], None] | None:
        """Count a connection. Returns what to call when it is closed, once or more often; None where there is no room."""
        client = countable(address)
        is_full = self._per_client[client] >= self._allowed_per_client and not self._is_proxy(address)
        if self._open >= self._allowed or is_full:
            _drop_zero(self._per_client, client)
            return None
        self._open += 1
        self._per_client[client] += 1

        is_open = True

        def close() -> None:
            nonlocal is_open
            if not is_open:
                return
            is_open = False
            self._open -= 1
            self._per_client[client] -= 1
            _drop_zero(self._per_client, client)

        return close


class HeldBytes:
    """Counts bytes that are held: received ones, and those that are to be sent."""

    def __init__(self, *, allowed: int, allowed_per_client: int) -> None:
        self.allowed = allowed
        self.allowed_per_client = allowed_per_client
        self.held_bytes = 0
        self.per_client: Counter[str] = Counter()

    def open(self, address: str) -> Holding:
        """Begin to count for a body or a connection."""
        return Holding(self, countable(address))


class Holding:
    """What is held for one body or one connection."""

    def __init__(self, counted: HeldBytes, client: str) -> None:
        self._counted = counted
        self._client = client
        self._bytes = 0

    def set(self, size_bytes: int, *, whatever_size: bool = False) -> None:
        """Change what is held.

        whatever_size: for answers, which may be larger than what a client may send: let it pass while nothing else is held.
        Raises: BodiesFull when that is more than there is room for; it then stays as it was.
        """
        counted, more = self._counted, size_bytes - self._bytes
        if more > 0:
            of_client = counted.per_client[self._client]
            _drop_zero(counted.per_client, self._client)
            if of_client + more > counted.allowed_per_client and not (whatever_size and of_client == self._bytes):
                raise BodiesFull("what is held for this client", counted.allowed_per_client)
            if counted.held_bytes + more > counted.allowed and not (whatever_size and counted.held_bytes == self._bytes):
                raise BodiesFull("what is held for all clients", counted.allowed)
        counted.held_bytes += more
        counted.per_client[self._client] += more
        self._bytes = size_bytes
        _drop_zero(counted.per_client, self._client)

    def close(self) -> None:
        """Nothing is held any more."""
        self.set(0)

    def counting(self, receive: Receive, most_bytes: int) -> Receive:
        """Count what comes of a body. most_bytes: of what is more than that nothing is kept."""
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
    """Say whether a request's body may be too large not to be counted."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and _is_large(value)) for name, value in headers)


def answer_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Read how large an answer is; 0 when it does not say."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _is_large(length: bytes) -> bool:
    return len(length) > 5 or not length.isdigit() or int(length) > UNCOUNTED_BYTES


def _drop_zero(counts: Counter[str], key: str) -> None:
    if not counts[key]:
        del counts[key]
