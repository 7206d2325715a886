"""Who asks: what every use case is told beside the request itself."""

from __future__ import annotations

import ipaddress
from typing import Literal

from msgspec import Struct

Role = Literal["user", "admin"]

IPV6_NETWORK_BITS = 64
"""A host on IPv6 has a whole network of addresses to choose from. Source: RFC 4291, section 2.5.4."""


class Allowance(Struct, frozen=True, kw_only=True):
    """What somebody may use. None: whatever the settings say; 0: no limit."""

    runs_per_minute: int | None = None
    concurrent_runs: int | None = None
    cpu_seconds_per_day: int | None = None


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, as a door found out. address: where the request came from, "" when nowhere ("firebox run").

    user_id: None for a caller without a token, and for the operator's own admin token. allowance: the user's own numbers.
    """

    address: str = ""
    user_id: int | None = None
    name: str = ""
    role: Role = "user"
    allowance: Allowance = Allowance()

    @property
    def key(self) -> str:
        """Name whom fairness and rate limits count: the user, else the address."""
        return self.account or f"address {countable(self.address)}"

    @property
    def account(self) -> str:
        """Name whom things belong to: the user or the operator; "" for a caller without a token, who owns nothing."""
        if self.user_id is not None:
            return f"user {self.user_id}"
        return "admin" if self.role == "admin" else ""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def is_anonymous(self) -> bool:
        """Whether no token came with the request."""
        return self.user_id is None and not self.is_admin


def countable(address: str) -> str:
    """Name what counts as one client: an IPv4 address, the network of an IPv6 one; other names stay as they are."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_NETWORK_BITS), strict=False))
