"""Users, their tokens, and what each may use."""

from __future__ import annotations

from firebox.config import Settings
from firebox.service.callers import Caller
from firebox.storage.stores import Stores


class Accounts:
    """Who may do what."""

    def __init__(self, stores: Stores, settings: Settings) -> None:
        self._stores = stores
        self._settings = settings

    async def identify(self, token: str | None, address: str) -> Caller:
        """Find out who asks: the user of a token, the operator, or, where nobody has to log in, an address.

        Raises: Unauthenticated, Forbidden for a disabled user, PartUnavailable.
        """
        del token
        return Caller(address=address)
