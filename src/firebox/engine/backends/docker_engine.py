"""Client of the container engine's API: the few calls that runs need, each with a timeout and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiodocker
import aiohttp

from firebox.domain.errors import ContainerError, NotFound, PartUnavailable
from firebox.engine.backends.docker_attachment import Attachment, open_attachment

PART = "container engine"
CALL_S = 20.0
"""Timeout of a call: creating a container can take seconds on a busy disk."""
SHOWN_CHARACTERS = 500
_UNREACHABLE = 900
"""Status that aiodocker reports when there was no connection."""


class ContainerEngine:
    """An engine at an address. url: unix://PATH or tcp://HOST:PORT. call_s: timeout of each call.

    Raises, each call: PartUnavailable when the engine cannot be reached or does not answer in time, ContainerError when the call
    fails.
    """

    def __init__(self, url: str, *, call_s: float = CALL_S) -> None:
        self._url = url
        self._call_s = call_s
        self._client: aiodocker.Docker | None = None

    async def create(self, name: str, configuration: Mapping[str, Any]) -> None:
        """Create a container of that name. Raises also: NotFound for an image that the engine does not have."""
        async with self._call():
            try:
                await self._containers.create(dict(configuration), name=name)
            except aiodocker.DockerError as error:
                if error.status == 404:
                    raise NotFound("image", str(configuration["Image"])) from None
                raise

    async def attach(self, name: str, *, stdin: bool) -> Attachment:
        """Connect to the streams of a container that was created."""
        async with self._call():
            path = f"/{self._docker.api_version}/containers/{name}/attach?stream=1&stdout=1&stderr=1&stdin={int(stdin)}"
            return await open_attachment(self._url, path)

    async def start(self, name: str) -> None:
        """Start the program of a container."""
        async with self._call():
            await self._containers.container(name).start()

    async def exit_code(self, name: str) -> int:
        """Wait for the end of a container and return its exit code. The only call without a timeout."""
        async with self._call(bounded=False):
            answer = await self._containers.container(name).wait(timeout=None)
            return int(answer["StatusCode"])

    async def signal(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container."""
        async with self._call():
            await self._containers.container(name).kill(signal=signal)

    async def remove(self, name: str) -> None:
        """Kill a container and remove it with its volumes; one that is gone, or is going, is fine."""
        async with self._call():
            try:
                await self._containers.container(name).delete(force=True, v=True)
            except aiodocker.DockerError as error:
                if error.status not in (404, 409):
                    raise

    async def list_labelled(self, label: str) -> dict[str, dict[str, str]]:
        """Return the labels of every container, running or not, that has one of that name; by the container's name."""
        async with self._call():
            found = await self._containers.list(all=True, filters={"label": [label]})
            return {str(each["Names"][0]).removeprefix("/"): dict(each["Labels"]) for each in found}

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.close()
            await self._client.session.close()
            self._client = None

    @property
    def _docker(self) -> aiodocker.Docker:
        """The client, created inside an event loop. One connection per call: none can have died before it is used."""
        if self._client is None:
            parts = urlsplit(self._url)
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(parts.path, force_close=True, limit=0)
                if parts.scheme == "unix"
                else aiohttp.TCPConnector(force_close=True, limit=0)
            )
            session = aiohttp.ClientSession(connector=connector)
            # The connector knows the path of the socket; the client wants a host to write into its requests.
            host = "unix://localhost" if parts.scheme == "unix" else self._url
            self._client = aiodocker.Docker(host, connector=connector, session=session)
        return self._client

    @property
    def _containers(self) -> Any:
        """The calls about containers, which the library types only in part."""
        return self._docker.containers

    @asynccontextmanager
    async def _call(self, *, bounded: bool = True) -> AsyncGenerator[None]:
        """Apply the timeout to a call and translate its errors."""
        try:
            async with asyncio.timeout(self._call_s if bounded else None):
                yield
        except TimeoutError:
            raise PartUnavailable(PART, detail=f"no answer within {self._call_s:g} seconds") from None
        except aiodocker.DockerError as error:
            if error.status == _UNREACHABLE:
                raise PartUnavailable(PART, detail=_shorten(str(error.__context__ or "no connection"))) from None
            raise ContainerError(f"the container engine could not do it: {_shorten(error.message)}") from None
        except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError) as error:
            raise PartUnavailable(PART, detail=_shorten(str(error) or type(error).__name__)) from None
        except (KeyError, ValueError, TypeError, LookupError) as error:
            raise ContainerError(f"the container engine answered something else: {type(error).__name__}") from None


def _shorten(words: str) -> str:
    return words if len(words) <= SHOWN_CHARACTERS else words[:SHOWN_CHARACTERS] + "..."
