"""Fixtures for images: containers started directly through the engine's API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiodocker

ISOLATED = {
    "NetworkMode": "none",
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "Memory": 500_000_000,
    "MemorySwap": 500_000_000,
    "ReadonlyRootfs": True,
    "Tmpfs": {"/tmp": "exec,mode=1777,size=64m"},
}
"""The strictest options that both contracts allow."""


@dataclass(frozen=True)
class Ended:
    """The result of a container."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def answer(self) -> dict[str, str]:
        assert self.status == 0, self.stderr
        answer: dict[str, str] = json.loads(self.stdout)
        return answer


async def run_container(url: str, image: str, *, arguments: Sequence[str] = (), stdin: bytes = b"") -> Ended:
    """Create, attach, start, feed, read to the end, remove. Standard input stays open: neither contract waits for its end."""
    output: dict[int, bytes] = {1: b"", 2: b""}
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": list(arguments),
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": ISOLATED,
    }
    async with aiodocker.Docker(url=url) as docker:
        container = await docker.containers.create(config)
        try:
            async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
                await container.start()
                if stdin:
                    await stream.write_in(stdin)
                while (message := await stream.read_out()) is not None:
                    output[message.stream] += message.data
            status: int = (await container.wait())["StatusCode"]
        finally:
            await container.delete(force=True)
    return Ended(status, output[1], output[2])
