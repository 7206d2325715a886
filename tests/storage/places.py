"""Databases and settings for storage tests, and a connection to a service that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from firebox.settings.settings import Settings, load_settings
from firebox.storage.database import Database
from firebox.storage.database_address import Address
from firebox.storage.stores import Stores, open_stores


class Clock:
    """A clock set by the test."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def settings_for(database_url: str, **more: object) -> Settings:
    """Settings of a server on this database, independent of the environment."""
    return load_settings({"database_url": database_url, **more}, environ={})


@asynccontextmanager
async def stores_at(database_url: str, **more: object) -> AsyncGenerator[Stores]:
    async with open_stores(settings_for(database_url, **more)) as stores:
        yield stores


async def ping(stores: Stores) -> None:
    """Ask the database something."""
    await stores.database.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())


async def execute(address: Address, *statements: str) -> list[Any]:
    """Run statements in one transaction. Return the rows of the last one."""

    def work(connection: Connection) -> list[Any]:
        rows: list[Any] = []
        for statement in statements:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        return rows

    async with Database(address, single=True) as database:
        return await database.write(work)


def file_of(database_url: str) -> Path:
    """The file of a SQLite database."""
    return Path(database_url.removeprefix("sqlite:///"))


class Line:
    """A TCP proxy to a local service. While it is cut, nothing is answered and nothing is closed. Connections used meanwhile are
    closed when it is mended.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            theirs, to_them = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pump(reader, to_them), self._pump(theirs, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not self._whole.is_set():
                    await self._whole.wait()
                    break
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def line_to(port: int) -> AsyncGenerator[Line]:
    """Open a proxy to a local port; everything on it ends with the context."""
    line = Line(port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(line.carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
