"""Client addresses of gRPC calls: as passed on by the guard, or named by a trusted proxy."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import grpc

from firebox.doors.http.hosts_and_proxies import Proxies


def client_of(context: grpc.aio.ServicerContext[Any, Any], proxies: Proxies) -> str:
    """Return the address of the client of a call. Trusted proxies name it in `x-forwarded-for`, as over HTTP."""
    address = client_address(context.peer())
    if not proxies:
        return address
    metadata = context.invocation_metadata() or ()
    forwarded = [str(value).encode("latin-1", "replace") for key, value in metadata if key == "x-forwarded-for"]
    return proxies.client_of(address, forwarded)


def client_address(peer: str) -> str:
    """Parse the address in gRPC's name of a peer: "unix-abstract:firebox-grpc-7-f00-0/192.0.2.1". "" for any other name."""
    family, _, name = unquote(peer).partition(":")
    return name.rpartition("/")[2] if family == "unix-abstract" else ""
