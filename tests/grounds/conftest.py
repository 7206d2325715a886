"""The grounds-exec door: on a real server, and on one inside of the test where its clock is the test's own."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
import socketio
import uvicorn
from litestar import Litestar

from firebox.doors.grounds.routes import mounts
from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.service.service import Service
from firebox.settings.settings import load_settings
from firebox.storage.stores import open_stores
from tests.conftest import require_tool
from tests.support.server import RunningServer, kept_server, server, start_server

__all__ = ["kept_server", "server", "start_server"]

NPM = Path(__file__).parent / "npm"
PATIENCE_S = 60.0
TRANSPORTS = ("websocket", "polling")
RUNTIMES = (
    Runtime(language="python3", version="3.0.0", main_name="main.py", extensions=(".py",), run=("/usr/bin/python3", "{main}")),
    Runtime(language="sh", version="5.0.0", main_name="main.sh", extensions=(".sh",), run=("/bin/sh", "{main}")),
    Runtime(
        language="built",
        version="1.0.0",
        main_name="main.sh",
        extensions=(".sh",),
        compile=(("/bin/sh", "{main}"),),
        run=("/bin/sh", "built.sh"),
    ),
)
"""`built` has a compile stage that is a shell script: what it leaves in `built.sh` is run."""


class Client:
    """A client of python-socketio, and what it was told."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.io: Any = socketio.AsyncClient(reconnection=False, http_session=http)
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.io.on("run", self.heard.put_nowait)
        self.io.on("disconnect", lambda *_: self.gone.set())

    async def ask(self, language: str, code: str) -> None:
        await self.io.emit("run", {"language": language, "code": code})

    async def hear(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)

    async def hear_until(self, stream: str, chunk: str = "") -> list[dict[str, Any]]:
        """Everything up to the reply on that stream whose chunk holds `chunk`."""
        replies = [await self.hear()]
        while replies[-1]["stream"] != stream or chunk not in str(replies[-1]["chunk"]):
            replies.append(await self.hear())
        return replies

    async def hear_all(self) -> list[dict[str, Any]]:
        """Everything up to the last word of a run."""
        replies = [await self.hear()]
        while replies[-1]["stream"] not in {"status", "error"}:
            replies.append(await self.hear())
        return replies

    async def run(self, language: str, code: str) -> list[dict[str, Any]]:
        await self.ask(language, code)
        return await self.hear_all()


@asynccontextmanager
async def closing_session() -> AsyncGenerator[aiohttp.ClientSession]:
    """A session whose answers are all closed at the end: python-socketio forgets some that it does not like."""
    answers: list[aiohttp.ClientResponse] = []

    async def note(_session: object, _context: object, parameters: aiohttp.TraceRequestEndParams) -> None:
        answers.append(parameters.response)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    async with aiohttp.ClientSession(trace_configs=[trace]) as http:
        try:
            yield http
        finally:
            for answer in answers:
                answer.close()


@asynccontextmanager
async def connected(url: str, transport: str = "websocket", **options: Any) -> AsyncGenerator[Client]:
    """A client that has joined, by one transport; "upgrade" begins with one and goes on with the other."""
    transports = ["polling", "websocket"] if transport == "upgrade" else [transport]
    async with closing_session() as http:
        client = Client(http)
        await client.io.connect(url, transports=transports, wait_timeout=PATIENCE_S, **options)
        try:
            yield client
        finally:
            await client.io.disconnect()
            await client.io.wait()


class Poller:
    """A client that polls, by hand. revision: of Engine.IO; sid: of its session."""

    def __init__(self, http: httpx.AsyncClient, url: str, revision: int) -> None:
        self._http = http
        self._address = urlsplit(url)
        self._revision = revision
        self.sid = ""

    async def open(self) -> list[str]:
        """Begin a session. Returns the packets that came with the greeting, which is the first one."""
        answer = await self._http.get("/socket.io/", params={"EIO": str(self._revision), "transport": "polling"})
        assert answer.status_code == 200, answer.text
        packets = self._split(answer.text)
        assert packets[0][0] == "0"
        self.sid = json.loads(packets[0][1:])["sid"]
        return packets

    async def send(self, body: bytes | str, content_type: str = "text/plain;charset=UTF-8") -> httpx.Response:
        return await self._http.post("/socket.io/", params=self._params, content=body, headers={"Content-Type": content_type})

    async def post(self, *packets: str) -> None:
        answer = await self.send(self.payload(*packets))
        assert (answer.status_code, answer.text.lower()) == (200, "ok")

    def payload(self, *packets: str) -> str:
        if self._revision == 4:
            return "\x1e".join(packets)
        return "".join(f"{len(packet.encode('utf-16-le')) // 2}:{packet}" for packet in packets)

    async def ask_for_packets(self) -> httpx.Response:
        return await self._http.get("/socket.io/", params=self._params)

    async def poll(self) -> list[str]:
        answer = await self.ask_for_packets()
        assert answer.status_code == 200, answer.text
        return self._split(answer.text)

    async def poll_until(self, *words: str) -> list[str]:
        """Everything up to the poll that brings a packet with one of these words."""
        packets: list[str] = []
        async with asyncio.timeout(PATIENCE_S):  # pings come for as long as the session lasts
            while not any(word in packet for packet in packets for word in words):
                packets += await self.poll()
        return packets

    async def begin_poll(self) -> Callable[[], Awaitable[None]]:
        """Send a poll on a connection of its own; returns what closes that."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        head = f"HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n"
        # Answered at once: from then on the server reads this connection as it reads the others.
        writer.write(f"GET /socket.io/ {head}".encode())
        await reader.readuntil(b"}")
        writer.write(f"GET /socket.io/?{httpx.QueryParams(self._params)} {head}".encode())
        await writer.drain()

        async def hang_up() -> None:
            writer.close()
            await writer.wait_closed()

        return hang_up

    def _split(self, payload: str) -> list[str]:
        if self._revision == 4:
            return payload.split("\x1e")
        assert payload.isascii(), "clients of versions 1 and 2 read other text differently"
        packets: list[str] = []
        while payload:
            length, _, payload = payload.partition(":")
            packets.append(payload[: int(length)])
            payload = payload[int(length) :]
        return packets

    @property
    def _params(self) -> dict[str, str]:
        return {"EIO": str(self._revision), "transport": "polling", "sid": self.sid}


@asynccontextmanager
async def polling(url: str, *, join: bool = True, revision: int = 4, **options: Any) -> AsyncGenerator[Poller]:
    """A session that polls, of a client that has joined; one of revision 3 always has."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, **options) as http:
        poller = Poller(http, url, revision)
        packets = await poller.open()
        if revision == 3:
            assert packets[1:] == ["40"]
        elif join:
            await poller.post("40")
            assert (await poller.poll())[0].startswith('40{"sid":')
        yield poller


async def until(place: Place, busy: tuple[int, int]) -> None:
    """Return when that many runs have a slot, and wait for one."""
    async with asyncio.timeout(PATIENCE_S):
        while place.busy != busy:
            await asyncio.sleep(0)


def text(replies: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(reply["chunk"] for reply in replies if reply["stream"] == stream)


@dataclass
class Clock:
    """Time that passes when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Place:
    """A server inside of the test."""

    url: str
    service: Service
    clock: Clock = field(default_factory=Clock)

    @property
    def busy(self) -> tuple[int, int]:
        """How many runs have a slot, and how many wait for one."""
        statistics = self.service.statistics()
        return statistics.in_flight, statistics.queued

    async def is_idle(self) -> None:
        """Return when nothing of any run is left."""
        assert await self.service._executor.runs.drain(PATIENCE_S)
        assert self.busy == (0, 0)


class _Server(uvicorn.Server):
    """uvicorn without signals: those are the test's."""

    started_event: asyncio.Event

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.started_event.set()


@asynccontextmanager
async def opened_place(folder: Path, **flags: object) -> AsyncGenerator[Place]:
    settings = load_settings({"data_dir": str(folder), "ready_sandboxes": 2, "slots": 2, **flags}, environ={})
    registry = Registry(RUNTIMES)
    async with open_stores(settings) as stores, LocalExecutor(settings, registry) as executor:
        service = Service(executor, registry, settings, stores)
        clock = Clock()
        app = Litestar(route_handlers=mounts(service, settings, clock), logging_config=None)
        config = uvicorn.Config(app, ws="websockets-sansio", log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = _Server(config)
        server.started_event = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await asyncio.wait_for(server.started_event.wait(), PATIENCE_S)
            try:
                yield Place(f"http://127.0.0.1:{listener.getsockname()[1]}", service, clock)
            finally:
                await service.stop(5.0)
                server.should_exit = True
                await serving


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A server inside of the test; at the end nothing runs there."""
    async with opened_place(tmp_path) as opened:
        yield opened
        await opened.is_idle()


@pytest.fixture
def make_place(tmp_path: Path) -> Callable[..., Any]:
    """Make servers inside of the test with settings of one's own."""
    return lambda **flags: opened_place(tmp_path, **flags)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install socket.io-client as the lock file says in a folder that is thrown away."""
    require_tool("node")
    npm = require_tool("npm")
    folder = tmp_path_factory.mktemp("npm")
    for path in NPM.iterdir():
        shutil.copy(path, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def log_of(server: RunningServer) -> str:
    return server.log.read_text()
