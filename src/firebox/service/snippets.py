"""Shared snippets: code that ran well, kept with what it printed."""

from __future__ import annotations

from firebox.config import Settings
from firebox.service.accounts import Accounts
from firebox.storage.stores import Stores


class Snippets:
    """Share, fetch, delete."""

    def __init__(self, stores: Stores, accounts: Accounts, settings: Settings) -> None:
        self._stores = stores
        self._accounts = accounts
        self._settings = settings
