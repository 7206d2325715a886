"""Latency of streamed output: from `write(2)` in the program to a WebSocket client."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from firebox.bench.contender import BenchmarkFailed

PATH = "/api/v1/runs/live"
PAUSE_S = 0.003
"""Between two lines, so that each is sent alone."""
_PATIENCE_S = 60.0
_READ_BYTES = 65_536

# The clock is the same inside and outside of the sandbox.
_PROGRAM = """
import os, time
for _ in range({lines}):
    time.sleep({pause_s})
    os.write(1, b"%d\\n" % time.monotonic_ns())
"""


def measure_stream(url: str, lines: int) -> list[float]:
    """Run a program that writes `lines` lines. Return the latency of each in milliseconds. Raises: BenchmarkFailed."""
    place = urlsplit(url)
    program = _PROGRAM.format(lines=lines, pause_s=PAUSE_S)
    start = {"type": "start", "language": "python", "code": program, "limits": {"run": {"wall_ms": 60_000}}}
    samples_ms: list[float] = []
    with socket.create_connection((place.hostname, place.port), timeout=_PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The protocol without a library's threads or event loop, which would be measured too.
        protocol = ClientProtocol(parse_uri(f"ws://{place.netloc}{PATH}"))
        protocol.send_request(protocol.connect())
        started = False
        while True:
            for data in protocol.data_to_send():
                connection.sendall(data)
            data = connection.recv(_READ_BYTES)
            arrived_ns = time.monotonic_ns()
            if not data:
                raise BenchmarkFailed("the live run ended without its last event")
            protocol.receive_data(data)
            for event in protocol.events_received():
                if protocol.handshake_exc is not None:
                    raise BenchmarkFailed(f"the live run was rejected: {protocol.handshake_exc}")
                if not started:
                    protocol.send_text(json.dumps(start).encode())
                    started = True
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    message = json.loads(bytes(event.data))
                    if message["type"] == "output" and message["stream"] == "stdout":
                        samples_ms += [(arrived_ns - int(line)) / 1e6 for line in message["data"].split()]
                    elif message["type"] in ("error", "finished"):
                        if len(samples_ms) != lines:
                            raise BenchmarkFailed(f"{len(samples_ms)} of {lines} lines arrived; the last message was {message}")
                        return samples_ms
