"""Authorization of package management: required for every package request except listing."""

from __future__ import annotations

from firebox.domain.errors import PartUnavailable
from firebox.doors.http.credentials import identify
from firebox.doors.http.requests import AnyRequest
from firebox.service.callers import Caller
from firebox.service.packages import Packages
from firebox.service.service import Service

FORWARDING_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of forwarded requests: their real sender is unknown, although the proxy is on this machine."""


async def require_operator(request: AnyRequest, service: Service) -> Caller:
    """Allow admins; if accounts are disabled, allow clients on this machine.

    Raises: Unauthenticated, Forbidden, RateLimited, PartUnavailable.
    """
    caller = await identify(request, service)
    service.accounts.require_operator(caller, forwarded=any(name in request.headers for name in FORWARDING_HEADERS))
    return caller


def packages_of(service: Service) -> Packages:
    """Return the package service. Raises: PartUnavailable if this server has none."""
    if service.packages is None:
        raise PartUnavailable("package store", detail="this server has none")
    return service.packages
