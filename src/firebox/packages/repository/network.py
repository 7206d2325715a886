"""Asking web servers: redirects that lead nowhere else, bounded answers, another try where one may help."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

import httpx
import tenacity

from firebox import __version__
from firebox.packages.repository.sources import Source

MOST_REDIRECTS = 5
ATTEMPTS = 5
WHOLE_TIMEOUT_S = 120.0
"""For what is fetched in one piece: an index, its signature."""
PAUSE = tenacity.wait_random_exponential(multiplier=0.3, max=15)
"""Between attempts."""

_TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=30.0, pool=30.0)
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}
RANGE_NOT_SATISFIABLE = 416
"""The file has no bytes beyond those that are here."""
PARTIAL_CONTENT = 206
_REDIRECTS = {301, 302, 303, 307, 308}


class Unreachable(Exception):
    """The server cannot be reached, broke off, or is overloaded: another attempt may help. The message is for people."""


class Refused(Exception):
    """The server answered, and not with what was asked for; asking again changes nothing. status: 0 when that is not why."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def new_client() -> httpx.AsyncClient:
    """A client. Proxies are those of the environment; nothing is sent compressed, so that sizes are what they seem."""
    headers = {"User-Agent": f"firebox/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
    return httpx.AsyncClient(timeout=_TIMEOUT, headers=headers, follow_redirects=False, verify=_certificates())


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Which servers are who they say: reading the whole list takes a while."""
    return httpx.create_ssl_context()


@asynccontextmanager
async def opened(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str] | None = None, source: Source | None = None
) -> AsyncGenerator[httpx.Response]:
    """Open what an address leads to, after at most five redirects; its body is not read yet.

    source: whose user and password are sent, where the address is on the same server as its index.
    Raises: Unreachable; Refused for what another attempt does not change, answers from 400 upwards among it.
    """
    for _ in range(MOST_REDIRECTS + 1):
        try:
            request = client.build_request("GET", url, headers=dict(headers or {}))
            response = await client.send(request, stream=True, auth=_login(url, source))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise Refused(f"{url} is no address: {error}") from None
        except httpx.TransportError as error:
            raise Unreachable(f"{_host(url)} does not answer: {_words(error)}") from None
        try:
            if response.status_code not in _REDIRECTS:
                _check(response, url)
                yield response
                return
            url = _next_address(url, response.headers.get("Location", ""))
        except httpx.TransportError as error:
            raise Unreachable(f"{_host(url)} broke off: {_words(error)}") from None
        finally:
            await response.aclose()
    raise Refused(f"{_host(url)} redirects more than {MOST_REDIRECTS} times")


async def get(client: httpx.AsyncClient, url: str, *, most_bytes: int, source: Source | None = None) -> bytes:
    """Fetch something small as a whole. Raises: Unreachable after several attempts; Refused."""
    async for attempt in attempts():
        with attempt:
            try:
                async with asyncio.timeout(WHOLE_TIMEOUT_S), opened(client, url, source=source) as response:
                    return await _read(response, url, most_bytes)
            except TimeoutError:
                raise Unreachable(f"{_host(url)} takes longer than {WHOLE_TIMEOUT_S:g} s") from None
    raise AssertionError("unreachable")  # pragma: no cover - the last attempt raises


def attempts() -> tenacity.AsyncRetrying:
    """Attempts with growing pauses between them, as long as they end with `Unreachable`."""
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=PAUSE,
        retry=tenacity.retry_if_exception_type(Unreachable),
        reraise=True,
    )


async def _read(response: httpx.Response, url: str, most_bytes: int) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > most_bytes:
            raise Refused(f"{url} is larger than {most_bytes} bytes")
    return bytes(content)


def _check(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in _WORTH_ANOTHER_TRY:
        raise Unreachable(f"{_host(url)} answers {status} {response.reason_phrase}".rstrip())
    if status != RANGE_NOT_SATISFIABLE and not response.is_success:
        raise Refused(f"{url} is answered with {status} {response.reason_phrase}".rstrip(), status)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(f"{url} is sent compressed, which was not asked for")


def _next_address(url: str, location: str) -> str:
    """Where a redirect leads: to http or https, and from https to https only."""
    try:
        following = urljoin(url, location)
        parts = urlsplit(following)
    except ValueError:
        raise Refused(f"{url} redirects to what is no address") from None
    allowed = {"https"} if urlsplit(url).scheme == "https" else {"http", "https"}
    if not location or parts.scheme not in allowed or not parts.hostname:
        raise Refused(f"{url} redirects to {following[:200]!a}, which is not followed")
    return following


def _login(url: str, source: Source | None) -> httpx.BasicAuth | None:
    if source is None or not source.username + source.password or _origin(url) != _origin(source.location):
        return None
    return httpx.BasicAuth(source.username, source.password)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
