"""Who may change what is installed: asked before every request about packages that is more than a look at the list."""

from __future__ import annotations

from firebox.domain.errors import PartUnavailable
from firebox.doors.http.credentials import identify
from firebox.doors.http.requests import AnyRequest
from firebox.service.callers import Caller
from firebox.service.packages import Packages
from firebox.service.service import Service

PASSED_ON = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a request that a proxy passed on: who sent it may then be anywhere, though the proxy is on this machine."""


async def require_operator(request: AnyRequest, service: Service) -> Caller:
    """Leave packages to admins; where there is no way to be one, to programs of this machine.

    Raises: Unauthenticated, Forbidden, RateLimited, PartUnavailable.
    """
    caller = await identify(request, service)
    service.accounts.require_operator(caller, forwarded=any(name in request.headers for name in PASSED_ON))
    return caller


def packages_of(service: Service) -> Packages:
    """Give the packages of this server. Raises: PartUnavailable where none are installed through it."""
    if service.packages is None:
        raise PartUnavailable("package store", detail="this server has none")
    return service.packages
