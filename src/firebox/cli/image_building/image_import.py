"""Container engine client: ping, import and list images. Source: Docker Engine API 1.41, "Images"; Podman's compatible API."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from firebox.cli.image_building.contract import LABEL_CONTRACT, LABEL_LANGUAGE
from firebox.domain.errors import ContainerError, InvalidRequest, PartUnavailable

ANSWER_TIMEOUT_S = 10.0
IMPORT_TIMEOUT_S = 1800.0
PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image built by this command. created: seconds since 1970."""

    tags: tuple[str, ...]
    contract: str
    language: str
    size_bytes: int
    created: int


@dataclass(frozen=True, slots=True)
class Engine:
    """A container engine; created by `open_engine`."""

    session: aiohttp.ClientSession
    base: str

    async def ping(self) -> None:
        """Raises: PartUnavailable if the engine does not respond."""
        async with self._request("GET", "/_ping"):
            return

    async def images(self) -> list[Image]:
        """List the images with our labels. Raises: PartUnavailable, ContainerError."""
        wanted = json.dumps({"label": [LABEL_CONTRACT]})
        async with self._request("GET", "/images/json", params={"filters": wanted}) as response:
            found: list[dict[str, Any]] = await response.json()
        return [_image(each) for each in found]

    async def take(self, root: Path, tag: str, changes: Sequence[str], progress: Callable[[int], None]) -> str:
        """Import a tar of a root as an image and return its id.

        changes: lines of a Dockerfile. progress: called with the size of each chunk sent.
        Raises: PartUnavailable, ContainerError.
        """
        name, _, version = tag.rpartition(":")
        params = [("fromSrc", "-"), ("repo", name), ("tag", version), *(("changes", change) for change in changes)]
        headers, timeout = {"Content-Type": "application/x-tar"}, aiohttp.ClientTimeout(total=IMPORT_TIMEOUT_S)
        data = _pieces(root, progress)
        async with self._request(
            "POST", "/images/create", params=params, data=data, headers=headers, timeout=timeout
        ) as response:
            said = [json.loads(line) for line in (await response.text()).splitlines() if line.strip()]
        failed = next((str(line["error"]) for line in said if "error" in line), "")
        if failed or not said:
            raise ContainerError(f"the container engine rejected the image: {failed or 'empty response'}")
        return str(said[-1].get("status", ""))

    @asynccontextmanager
    async def _request(self, method: str, path: str, **more: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            async with self.session.request(method, self.base + path, **more) as response:
                if response.status >= 400:
                    raise ContainerError(f"the container engine returned {response.status}: {_words(await response.text())}")
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            detail = str(error) or type(error).__name__
            raise PartUnavailable("container engine", detail=detail, hint="check --docker-url") from None


@asynccontextmanager
async def open_engine(url: str) -> AsyncGenerator[Engine]:
    """Connect to an engine. url: unix:///path, tcp://host:port or http(s)://host:port. Raises: InvalidRequest."""
    scheme, _, rest = url.partition("://")
    connector: aiohttp.BaseConnector
    if scheme == "unix" and rest.startswith("/"):
        connector, base = aiohttp.UnixConnector(rest), "http://engine"
    elif scheme in {"tcp", "http", "https"} and rest:
        connector, base = aiohttp.TCPConnector(), f"{'https' if scheme == 'https' else 'http'}://{rest.rstrip('/')}"
    else:
        hint = "examples: unix:///run/docker.sock or tcp://HOST:PORT"
        raise InvalidRequest(f"{url!r} is not a valid engine URL", where="--docker-url", hint=hint)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)) as session:
        yield Engine(session, base)


async def _pieces(root: Path, progress: Callable[[int], None]) -> AsyncIterator[bytes]:
    with root.open("rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece
            progress(len(piece))


def _image(found: dict[str, Any]) -> Image:
    labels: dict[str, str] = found.get("Labels") or {}
    tags = tuple(str(tag) for tag in found.get("RepoTags") or ())
    return Image(tags, labels.get(LABEL_CONTRACT, ""), labels.get(LABEL_LANGUAGE, ""), int(found["Size"]), int(found["Created"]))


def _words(text: str) -> str:
    """Extract the error message from a response."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
