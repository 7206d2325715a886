"""Routers that an application takes as they are."""

from __future__ import annotations

from typing import Any, Self

import litestar


class Router(litestar.Router):
    """A router of one application. Litestar registers a deep copy of one, for those who use it twice: a tenth of a start."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Stay one, and so do its handlers and the service behind them."""
        return self
