"""Who a request comes from: its token, else its address."""

from __future__ import annotations

from firebox.doors.http import AnyConnection, client_address
from firebox.service.callers import Caller
from firebox.service.service import Service


async def identify(connection: AnyConnection, service: Service) -> Caller:
    """Find out who asks."""
    return await service.accounts.identify(None, client_address(connection))
