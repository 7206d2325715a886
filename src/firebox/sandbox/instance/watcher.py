"""An epoll instance for short-lived file descriptors.

uvloop needs about ten system calls and several objects to watch a descriptor. A sandbox has five of them for the few milliseconds
of a run. Here each costs two system calls, and the event loop watches a single descriptor.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

Callback = Callable[[], None]


class Watcher:
    """Calls back whenever a descriptor is readable or at its end, until it is removed."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callback] = {}
        self._closed = False

    def add(self, descriptor: int, callback: Callback) -> None:
        """Watch a descriptor, or replace its callback. It must be removed before it is closed."""
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look, self._epoll)
        if descriptor not in self._callbacks:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def remove(self, descriptor: int) -> None:
        """Stop watching a descriptor, if it is watched."""
        if self._callbacks.pop(descriptor, None) is None:
            return
        assert self._epoll is not None  # noqa: S101 - set by add
        self._epoll.unregister(descriptor)
        self._close_if_unused()

    def close(self) -> None:
        """Release everything as soon as no descriptor is watched."""
        self._closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closed and not self._callbacks and self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self, epoll: select.epoll) -> None:
        """Call back for each ready descriptor."""
        ready = [(descriptor, self._callbacks[descriptor]) for descriptor, _events in epoll.poll(0)]
        for descriptor, callback in ready:
            # An earlier callback may have closed this descriptor and opened another with the same number.
            if self._callbacks.get(descriptor) is not callback:
                continue
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - as in the event loop, the other callbacks still run
                context = {"message": "a descriptor's callback failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
