"""Languages as operators register them: a name and a version that stand for a container image or for our own sandbox."""

from __future__ import annotations

from firebox.runtimes.registry import Registry
from firebox.storage.stores import Stores


class Languages:
    """The registered languages."""

    def __init__(self, stores: Stores, registry: Registry) -> None:
        self._stores = stores
        self._registry = registry
