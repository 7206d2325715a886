"""A new run ends the old one, a disconnect ends everything: in every phase, however often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from firebox.domain.model import File, Job
from firebox.service.callers import Caller
from tests.grounds.conftest import TRANSPORTS, Client, Place, connected, polling, text, until

ENDLESS = "echo begun; while :; do echo more; sleep 0.001; done"
STOP = {"stream": "stop", "chunk": ""}

every_transport = pytest.mark.parametrize("transport", [*TRANSPORTS, "upgrade"])


@every_transport
async def test_nothing_of_the_old_run_comes_after_stop(place: Place, transport: str) -> None:
    async with connected(place.url, transport) as client:
        await client.ask("sh", ENDLESS)
        await client.hear_until("stdout", "begun")
        for number in range(20):
            place.clock.pass_by(0.5)
            await client.ask("sh", f"echo run {number}; " + ENDLESS.replace("begun", "").replace("more", f"more of {number}"))
            await client.hear_until("stop")
            replies = await client.hear_until("stdout", f"more of {number}\n")
            assert replies[0] == {"stream": "start", "chunk": ""}
            assert set(text(replies).split("\n")) <= {f"run {number}", f"more of {number}", ""}
    await place.is_idle()


@every_transport
async def test_quick_requests_each_end_the_one_before(place: Place, transport: str) -> None:
    """No start is awaited: runs are ended while they wait for a slot, for a sandbox, for their first output."""
    count = 60
    async with connected(place.url, transport) as client:
        for _ in range(count):
            await client.ask("built", "echo 'sleep 600' > built.sh")
            place.clock.pass_by(0.5)
            await asyncio.sleep(0)
        heard: list[dict[str, Any]] = []
        while heard.count(STOP) + sum(reply["chunk"] == "Spam prevention." for reply in heard) < count - 1:
            heard.append(await client.hear())
        place.clock.pass_by(0.5)
        await client.ask("sh", "echo last")
        replies = await client.hear_until("status")
        assert text(replies) == "last\n"
        await place.is_idle()
    running = False
    for reply in [*heard, *replies]:
        assert not (reply["stream"] == "start" and running)
        running = reply["stream"] in {"start", "stdout"} or (running and reply["stream"] == "error")


async def test_a_run_that_has_ended_is_not_stopped(place: Place) -> None:
    async with connected(place.url) as client:
        for _ in range(20):
            replies = await client.run("sh", "exit 3")
            assert [reply["stream"] for reply in replies] == ["start", "status"]
            place.clock.pass_by(0.5)


async def test_an_unknown_language_stops_the_old_run_too(place: Place) -> None:
    """As grounds-exec does: it stops the old run before it looks for an image."""
    async with connected(place.url) as client:
        await client.ask("sh", ENDLESS)
        await client.hear_until("stdout", "begun")
        place.clock.pass_by(0.5)
        await client.ask("nothing-like-it", "")
        replies = (await client.hear_until("stop")) + await client.hear_all()
        assert replies[-1]["stream"] == "error"
        assert "nothing-like-it" in replies[-1]["chunk"]
        await place.is_idle()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (None, "Request is empty."),
        ({}, "Request is empty."),
        ({"language": "sh", "code": "x" * 65_537}, "Program too long."),
        ({"code": ""}, "The language is missing."),
        ({"language": 5, "code": ""}, "The language is not text."),
        ({"language": "sh", "code": ["x"]}, "The code is not text."),
        ("sh", "The request is not an object."),
        ([1], "The request is not an object."),
    ],
)
async def test_a_request_that_is_none_leaves_the_run_alone(place: Place, request_: object, words: str) -> None:
    async with connected(place.url) as client:
        await client.ask("sh", ENDLESS)
        await client.hear_until("stdout", "begun")
        place.clock.pass_by(0.5)
        await client.io.emit("run", request_)
        assert (await client.hear_until("error"))[-1]["chunk"] == words
        await client.hear_until("stdout", "more")
        assert place.busy == (1, 0)


async def leave(client: Client, how: str) -> None:
    """End a connection: as the protocol says, or as a broken network does."""
    if how == "properly":
        await client.io.disconnect()
    else:
        await client.io.eio.http.close()


@pytest.mark.parametrize("transport", ["websocket", "upgrade"])
@pytest.mark.parametrize("how", ["properly", "abruptly"])
@pytest.mark.parametrize("phase", ["at once", "queued", "started", "writing", "compiling"])
async def test_a_disconnect_leaves_nothing(make_place: Callable[..., Any], transport: str, how: str, phase: str) -> None:
    async with make_place(slots=1, run_wall_ms=60_000) as place, AsyncExitStack() as stack:
        if phase == "queued":
            await stack.enter_async_context(
                place.service.start(Job(language="sh", files=(File("", b"sleep 600"),)), Caller(address="192.0.2.1"))
            )
        async with connected(place.url, transport) as client:
            await client.ask("built" if phase == "compiling" else "sh", "sleep 600" if phase == "compiling" else ENDLESS)
            if phase == "queued":
                await until(place, (1, 1))
            elif phase in {"started", "compiling"}:
                await client.hear_until("start")
            elif phase == "writing":
                await client.hear_until("stdout", "more")
            await leave(client, how)
            if phase == "queued":
                await until(place, (1, 0))
                await stack.aclose()
            await place.is_idle()


@pytest.mark.parametrize("how", ["properly", "abruptly"])
@pytest.mark.parametrize("phase", ["queued", "started"])
async def test_a_client_that_stops_polling_leaves_nothing(make_place: Callable[..., Any], how: str, phase: str) -> None:
    async with make_place(slots=1, run_wall_ms=60_000) as place, AsyncExitStack() as stack:
        if phase == "queued":
            await stack.enter_async_context(
                place.service.start(Job(language="sh", files=(File("", b"sleep 600"),)), Caller(address="192.0.2.1"))
            )
        poller = await stack.enter_async_context(polling(place.url))
        await poller.post("42" + json.dumps(["run", {"language": "sh", "code": "sleep 600"}]))
        if phase == "queued":
            await until(place, (1, 1))
        else:
            assert await poller.poll() == ['42["run",{"stream":"start","chunk":""}]']
        hang_up = await poller.begin_poll()
        # The answer comes after the server has seen the poll, which came first.
        await poller.post("3" if how == "abruptly" else "1")
        if how == "abruptly":
            await hang_up()
        await until(place, (1, 0) if phase == "queued" else (0, 0))
        await hang_up()


async def test_a_client_that_returns_has_a_fresh_connection(place: Place) -> None:
    async with connected(place.url) as client:
        await client.ask("sh", ENDLESS)
        await client.hear_until("start")
    async with connected(place.url) as client:
        place.clock.pass_by(0.5)
        assert text(await client.run("sh", "echo again")) == "again\n"


async def test_a_stop_of_the_server_ends_runs_and_polls(make_place: Callable[..., Any]) -> None:
    async with make_place() as place, polling(place.url) as idle, polling(place.url) as busy:
        await busy.post("42" + json.dumps(["run", {"language": "sh", "code": "sleep 600"}]))
        assert await busy.poll() == ['42["run",{"stream":"start","chunk":""}]']
        answer = asyncio.create_task(idle.poll())
        stopping = asyncio.create_task(place.service.stop(0.5))
        assert (await answer)[-1] == "1"
        assert await busy.poll() == ['42["run",{"stream":"error","chunk":"The run was cancelled."}]']
        assert (await busy.poll())[-1] == "1"
        await stopping
