"""Transport sessions: who has one, how many one client may have, and what goes on in each."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from firebox.doors.grounds.conversation import Conversation
from firebox.doors.grounds.packets import PacketReader
from firebox.doors.grounds.rate_limit import Clock
from firebox.service.callers import rate_limit_key

SESSIONS = 4096
SESSIONS_OF_AN_ADDRESS = 256
"""Room for a class behind one address, and for several pages of each pupil."""


@dataclass(eq=False)
class Session:
    """One client's Engine.IO session. token: from its first request, replaced by what it sends when it joins, or None."""

    id: str
    address: str
    token: str | None
    reader: PacketReader
    conversation: Conversation | None = None
    poll: object = None
    """The request that waits for packets, None while there is none."""
    post: object = None
    """The request that brings packets."""
    upgrading: bool = False
    """A WebSocket is under way that is to take over, or has."""
    join_timer: asyncio.TimerHandle | None = None
    closing: asyncio.Task[None] | None = None

    def end(self) -> None:
        """End what the client has asked for, on the side."""
        if self.conversation is not None:
            self.conversation.close()
            self.conversation = None


class Sessions:
    """The sessions that are open."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._addresses: Counter[str] = Counter()

    def has_room(self, address: str) -> bool:
        """Whether a client may open one more session."""
        return len(self._sessions) < SESSIONS and self._addresses[rate_limit_key(address)] < SESSIONS_OF_AN_ADDRESS

    def open(self, identifier: str, address: str, token: str | None) -> Session:
        session = Session(identifier, address, token, PacketReader(self._clock))
        self._sessions[identifier] = session
        self._addresses[rate_limit_key(address)] += 1
        return session

    def find(self, identifier: str) -> Session | None:
        return self._sessions.get(identifier)

    def close(self, identifier: str) -> Session | None:
        """Forget a session that has ended, and end what its client has asked for."""
        session = self._sessions.pop(identifier, None)
        if session is None:
            return None
        address = rate_limit_key(session.address)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        if session.join_timer is not None:
            session.join_timer.cancel()
        session.end()
        return session
