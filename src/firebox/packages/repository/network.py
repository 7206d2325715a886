"""HTTP client for indexes and packages: bounded responses, safe redirects, retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from urllib.parse import urljoin, urlsplit

import httpx
import tenacity

from firebox import __version__
from firebox.packages.repository.sources import Source

MAX_REDIRECTS = 5
ATTEMPTS = 5
SMALL_FILE_TIMEOUT_S = 120.0
"""For small files fetched in one piece: an index or its signature."""
RETRY_DELAY = tenacity.wait_random_exponential(multiplier=0.3, max=15)
"""Delay between attempts."""

_TIMEOUT = httpx.Timeout(connect=15.0, read=60.0, write=30.0, pool=30.0)
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504}
RANGE_NOT_SATISFIABLE = 416
"""The requested range starts at or after the end of the file."""
PARTIAL_CONTENT = 206
_REDIRECTS = {301, 302, 303, 307, 308}


class TransientError(Exception):
    """The server is unreachable, dropped the connection or is overloaded; a retry may succeed. The message is user-facing."""


class PermanentError(Exception):
    """A response that a retry would not change. status: the HTTP status, or 0 if the failure is not a status."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def new_client() -> httpx.AsyncClient:
    """Create a client. Honors proxy environment variables. Disables compression, so that sizes on the wire are real."""
    headers = {"User-Agent": f"firebox/{__version__}", "Accept-Encoding": "identity", "Accept": "*/*"}
    return httpx.AsyncClient(timeout=_TIMEOUT, headers=headers, follow_redirects=False, verify=_certificates())


_certificates = cache(httpx.create_ssl_context)
"""Loads the trusted CA certificates once: parsing them is slow."""


@asynccontextmanager
async def open_stream(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str] | None = None, source: Source | None = None
) -> AsyncGenerator[httpx.Response]:
    """Open a streaming response, after at most five redirects.

    source: its credentials are sent if the URL has the same origin as its index.
    Raises: TransientError; PermanentError for failures that are not worth a retry, including most 4xx and 5xx responses.
    """
    for _ in range(MAX_REDIRECTS + 1):
        try:
            request = client.build_request("GET", url, headers=dict(headers or {}))
            response = await client.send(request, stream=True, auth=_credentials(url, source))
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise PermanentError(f"{url} is not a valid URL: {error}") from None
        except httpx.TransportError as error:
            raise TransientError(f"{_host(url)} is unreachable: {_describe(error)}") from None
        try:
            if response.status_code not in _REDIRECTS:
                _check_response(response, url)
                yield response
                return
            url = _redirect_target(url, response.headers.get("Location", ""))
        except httpx.TransportError as error:
            raise TransientError(f"{_host(url)} closed the connection: {_describe(error)}") from None
        finally:
            await response.aclose()
    raise PermanentError(f"{_host(url)} redirects more than {MAX_REDIRECTS} times")


async def get(client: httpx.AsyncClient, url: str, *, max_bytes: int, source: Source | None = None) -> bytes:
    """Fetch a small file. Raises: TransientError after several attempts; PermanentError."""
    return await attempts()(_get_once, client, url, max_bytes, source)


def attempts() -> tenacity.AsyncRetrying:
    """Return a retry loop with exponential backoff that retries on `TransientError`."""
    return tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=RETRY_DELAY,
        retry=tenacity.retry_if_exception_type(TransientError),
        reraise=True,
    )


async def _get_once(client: httpx.AsyncClient, url: str, max_bytes: int, source: Source | None) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(SMALL_FILE_TIMEOUT_S), open_stream(client, url, source=source) as response:
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > max_bytes:
                    raise PermanentError(f"{url} is larger than {max_bytes} bytes")
    except TimeoutError:
        raise TransientError(f"{_host(url)} timed out after {SMALL_FILE_TIMEOUT_S:g} s") from None
    return bytes(content)


def _check_response(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in _RETRYABLE:
        raise TransientError(f"{_host(url)} returned {status} {response.reason_phrase}".rstrip())
    if status != RANGE_NOT_SATISFIABLE and not response.is_success:
        raise PermanentError(f"{url} returned {status} {response.reason_phrase}".rstrip(), status)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PermanentError(f"{url} returned a compressed response to a request for an uncompressed one")


def _redirect_target(url: str, location: str) -> str:
    """Resolve a redirect: to http or https, and from https to https only."""
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
    except ValueError:
        raise PermanentError(f"{url} redirects to an invalid URL") from None
    allowed = {"https"} if urlsplit(url).scheme == "https" else {"http", "https"}
    if not location or parts.scheme not in allowed or not parts.hostname:
        raise PermanentError(f"{url} redirects to {target[:200]!a}, which is not allowed")
    return target


def _credentials(url: str, source: Source | None) -> httpx.BasicAuth | None:
    if source is None or not source.username + source.password or _origin(url) != _origin(source.location):
        return None
    return httpx.BasicAuth(source.username, source.password)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
