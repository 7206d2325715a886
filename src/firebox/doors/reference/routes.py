"""The description of the API at /schema/openapi.json, and the page at /schema that shows it and tries it out. The page is our
own, since nothing may be loaded from elsewhere: its policy allows it to speak to this server only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, cast

import msgspec
from litestar import get
from litestar.enums import ScopeType
from litestar.response.base import ASGIResponse
from litestar.types import Message, Scope

from firebox.doors.http.routing import Router

PREFIX = "/schema"
OPENAPI = "application/vnd.oai.openapi+json"
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    **NO_SNIFFING,
}


class Reference:
    """Serves the description. describe: makes it, when it is first asked for."""

    def __init__(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._describe = cache(describe)
        self._encoded = cache(lambda: msgspec.json.encode(self._describe()))

    def router(self) -> Router:
        """Make the routes."""

        @get("/openapi.json", include_in_schema=False)
        async def description() -> ASGIResponse:
            # Making it takes longer than others should wait.
            return ASGIResponse(body=await asyncio.to_thread(self._encoded), media_type=OPENAPI)

        parts = [
            _part("/", "page.html", "text/html", PAGE_HEADERS),
            _part("/page.css", "page.css", "text/css", NO_SNIFFING),
            _part("/page.js", "page.js", "text/javascript", NO_SNIFFING),
        ]
        return Router(PREFIX, route_handlers=[description, *parts])

    async def complete_allow(self, message: Message, scope: Scope) -> None:
        """Name every method of a path in the answer to OPTIONS: Litestar names those of the handler that came first."""
        if message["type"] != "http.response.start" or scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            return
        # A question of a browser before a request from another site has none: no route has seen it.
        template = cast("dict[str, Any]", scope).get("path_template")
        described = (await asyncio.to_thread(self._describe))["paths"].get(template)
        if described is None:
            return
        message["headers"] = [
            (name, _with_methods(value, described) if name == b"allow" else value) for name, value in message["headers"]
        ]


def _with_methods(value: bytes, described: dict[str, Any]) -> bytes:
    methods = {*value.decode().split(", "), *(method.upper() for method in described)}
    return ", ".join(sorted(methods)).encode()


def _part(path: str, name: str, media_type: str, headers: dict[str, str]) -> Any:
    @get(path, include_in_schema=False)
    async def part() -> ASGIResponse:
        return ASGIResponse(body=_read(name), media_type=media_type, headers=headers)

    return part


@cache
def _read(name: str) -> bytes:
    return files("firebox.doors.reference").joinpath(name).read_bytes()
