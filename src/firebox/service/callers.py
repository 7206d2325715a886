"""Who asks: what every use case is told beside the request itself."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Role = Literal["user", "admin"]


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, as a door found out. address: where the request came from, "" when nowhere ("firebox run").

    user_id: None for a caller without a token, and for the operator's own admin token.
    """

    address: str = ""
    user_id: int | None = None
    name: str = ""
    role: Role = "user"

    @property
    def key(self) -> str:
        """Name whom fairness and rate limits count: the user, else the address."""
        if self.user_id is not None:
            return f"user {self.user_id}"
        return "admin" if self.role == "admin" else f"address {self.address}"

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"
