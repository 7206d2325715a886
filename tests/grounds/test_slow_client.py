"""A client that does not take its output makes the program wait, and not our memory grow."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import connect

from tests.grounds.conftest import PATIENCE_S, polling
from tests.support.server import RunningServer, running_server

COUNTING = """
import os, sys
sent = 0
while sent < 100_000_000:
    sent += os.write(1, b"x" * 60_000)
    print(sent // 1000, file=sys.stderr, flush=True)
"""
ROOM_BYTES = 8_000_000
"""More than all buffers between a program and a client that reads nothing, and much less than what the program has to say."""
ASK = "42" + json.dumps(["run", {"language": "python3", "code": COUNTING}])
_HIGH = re.compile(r"VmHWM:\s+(\d+) kB")


def most_memory_bytes(server: RunningServer) -> int:
    found = _HIGH.search(Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget_most_memory(server: RunningServer) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def generous() -> list[str]:
    """Flags of a server whose limits let a program write more than any buffer holds."""
    return ["--run-output-bytes", "200MiB", "--grounds-wall-ms", "3000", "--slots", "4"]


async def test_a_websocket_that_is_not_read_stops_the_program() -> None:
    with running_server(*generous()) as server:
        await warm_up(server)
        forget_most_memory(server)
        before = most_memory_bytes(server)
        with socket.create_connection(server.address) as connection:
            address = server.url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
            options: dict[str, Any] = {"max_queue": 1, "max_size": None, "ping_interval": None}
            async with connect(address, sock=connection, **options) as client:
                await client.send("40")
                await client.send(ASK)
                await is_over(server, runs=2)
                # The program was stopped by its time: it had to wait for us. Only then do we read what was kept.
                heard = ""
                async with asyncio.timeout(PATIENCE_S):
                    while '"error"' not in heard:
                        packet = await client.recv()
                        assert isinstance(packet, str)
                        heard = packet if "stdout" not in packet else heard
                assert "Timeout exceeded." in heard
        # A server that does not stop the program holds 100 MB. What the allocator and the first WebSocket add varies.
        assert most_memory_bytes(server) - before < ROOM_BYTES * 4


async def test_a_client_that_does_not_poll_stops_the_program() -> None:
    with running_server(*generous()) as server:
        await warm_up(server)
        async with polling(server.url) as poller:
            await poller.post(ASK)
            await is_over(server, runs=2)
            heard = await poller.poll_until('"error"')
            assert "Timeout exceeded." in heard[-1]
            written = sum(len(packet) for packet in heard if '"stdout"' in packet)
            assert 0 < written < ROOM_BYTES


async def test_a_client_that_reads_gets_everything() -> None:
    code = "import os\nfor number in range(400):\n    os.write(1, b'%07d\\n' % number * 1000)"
    with running_server("--run-output-bytes", "60MiB", "--slots", "4") as server:
        address = server.url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
        async with connect(address, max_size=None) as client:
            await client.send("40")
            await client.send("42" + json.dumps(["run", {"language": "python3", "code": code}]))
            heard: list[str] = []
            async with asyncio.timeout(PATIENCE_S):
                while not heard or '"status"' not in heard[-1]:
                    packet = await client.recv()
                    assert isinstance(packet, str)
                    heard.append(packet)
        replies = [json.loads(packet[2:])[1] for packet in heard if packet.startswith("42")]
        output = "".join(reply["chunk"] for reply in replies if reply["stream"] == "stdout")
        assert output == "".join(f"{number:07d}\n" * 1000 for number in range(400))
        assert replies[-1] == {"stream": "status", "chunk": 0}


async def warm_up(server: RunningServer) -> None:
    """Run something: what the first run loads is not what is measured."""
    async with polling(server.url) as poller:
        await poller.post('42["run",{"language":"python3","code":"print(1)"}]')
        await poller.poll_until('"status"')


async def is_over(server: RunningServer, runs: int) -> None:
    """Return when the log says that so many runs have ended."""
    async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        while server.log.read_text().count("run ended") < runs:
            assert (await http.get("/api/v1/health")).status_code == 200
