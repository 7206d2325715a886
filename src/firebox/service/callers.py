"""Identity of the client behind a request."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from firebox.storage.records import DEFAULT_QUOTA, Quota, Role

IPV6_NETWORK_BITS = 64
"""An IPv6 host chooses addresses within a whole network. Source: RFC 4291, section 2.5.4."""


class Caller(Struct, frozen=True, kw_only=True):
    """An identified client. address: origin of the request, "" for `firebox run`.

    user_id: None without a token, and for the operator's admin token. quota: the user's own limits.
    """

    address: str = ""
    user_id: int | None = None
    name: str = ""
    role: Role = "user"
    quota: Quota = DEFAULT_QUOTA

    @property
    def key(self) -> str:
        """Return the key for fair scheduling and rate limits: the user, or the address."""
        return self.account or f"address {rate_limit_key(self.address)}"

    @property
    def account(self) -> str:
        """Return the owner for access control: the user or the operator; "" without a token, which owns nothing."""
        if self.user_id is not None:
            return f"user {self.user_id}"
        return "admin" if self.role == "admin" else ""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def is_anonymous(self) -> bool:
        """Return whether the request had no token."""
        return self.user_id is None and not self.is_admin


def rate_limit_key(address: str) -> str:
    """Return the rate limit key of an address: an IPv4 address, or the network of an IPv6 one; other names unchanged."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_NETWORK_BITS), strict=False))
