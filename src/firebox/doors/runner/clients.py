"""Who makes a gRPC call: the address that the guard passed on, or the one that a trusted proxy names."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import grpc

from firebox.doors.http.hosts_and_proxies import Proxies


def client_of(context: grpc.aio.ServicerContext[Any, Any], proxies: Proxies) -> str:
    """Return the address of the client of a call. Proxies name it in `x-forwarded-for`, as over HTTP."""
    address = client_address(context.peer())
    if not proxies:
        return address
    metadata = context.invocation_metadata() or ()
    forwarded = [str(value).encode("latin-1", "replace") for key, value in metadata if key == "x-forwarded-for"]
    return proxies.client_of(address, forwarded)


def client_address(peer: str) -> str:
    """Read the address out of what gRPC calls a peer: "unix-abstract:firebox-grpc-7-f00-0/192.0.2.1". "" for another kind."""
    family, _, name = unquote(peer).partition(":")
    return name.rpartition("/")[2] if family == "unix-abstract" else ""
