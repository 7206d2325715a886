"""Who may connect: tokens where a login is needed, pages of allowed sites only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from socketio.exceptions import ConnectionError as NotConnected
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.grounds.conftest import TRANSPORTS, Client, closing_session, connected, polling, text
from tests.support.server import RunningServer

ADMIN = "the-operators-token-of-this-test"

every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture
def guarded(kept_server: Callable[..., RunningServer]) -> RunningServer:
    return kept_server("--require-login", env={"FIREBOX_ADMIN_TOKEN": ADMIN})


async def refusal(url: str, transport: str, **options: Any) -> str:
    """Return the error of a client that may not connect."""
    async with closing_session() as http:
        client = Client(http)
        heard: list[Any] = []
        client.io.on("connect_error", heard.append)
        with pytest.raises(NotConnected):
            await client.io.connect(url, transports=[transport], **options)
        await client.io.disconnect()
        return str(heard[0])


@every_transport
async def test_a_token_lets_in(guarded: RunningServer, transport: str) -> None:
    for options in ({"auth": {"token": ADMIN}}, {"headers": {"Authorization": f"Bearer {ADMIN}"}}):
        async with connected(guarded.url, transport, **options) as client:
            assert text(await client.run("bash", "echo in")) == "in\n"


@every_transport
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "a token is needed"),
        ({"auth": {"token": ""}}, "a token is needed"),
        ({"auth": {"token": "wrong"}}, "wrong token"),
        ({"auth": {"token": ["wrong"]}}, "auth.token is not a token"),
        ({"auth": {"token": "x" * 5000}}, "auth.token is not a token"),
        ({"headers": {"Authorization": "Bearer wrong"}}, "wrong token"),
    ],
)
async def test_without_a_valid_token_the_connection_is_refused(
    guarded: RunningServer, transport: str, options: dict[str, Any], words: str
) -> None:
    assert words in await refusal(guarded.url, transport, **options)


async def test_events_of_a_refused_connection_run_nothing(guarded: RunningServer) -> None:
    runs = guarded.log.read_text().count("run ended")
    async with polling(guarded.url, join=False) as poller:
        await poller.post("40", '42["run",{"language":"bash","code":"echo in"}]')
        packets = await poller.poll()
        assert packets[0].startswith('44{"message":"a token is needed')
        assert len(packets) == 1
        for _ in range(9):
            await poller.post("40")
        assert (await poller.send("40")).json()["message"] == "too many attempts to connect"
    assert guarded.log.read_text().count("run ended") == runs


@pytest.mark.parametrize("query", ["access_token=a&access_token=b", "access_token=" + ADMIN, "token=" + ADMIN])
async def test_a_query_is_no_way_around(guarded: RunningServer, query: str) -> None:
    """One token in the query of a client that can send no other is taken; see the test of the npm package."""
    async with httpx.AsyncClient(base_url=guarded.url, trust_env=False) as http:
        old = (await http.get(f"/socket.io/?EIO=3&transport=polling&{query}")).text
        assert (":40" in old) == query.startswith(f"access_token={ADMIN}")
        greeting = (await http.get(f"/socket.io/?EIO=4&transport=polling&{query}")).text
        address = f"/socket.io/?EIO=4&transport=polling&{query}&sid={json.loads(greeting[1:])['sid']}"
        assert (await http.post(address, content="40")).text == "ok"
        assert (await http.get(address)).text.startswith("44")


async def test_tokens_are_not_logged(guarded: RunningServer) -> None:
    await refusal(guarded.url, "websocket", auth={"token": "a-secret-that-is-wrong"})
    async with connected(guarded.url, auth={"token": ADMIN}) as client:
        await client.run("bash", "echo a-secret-program")
    async with httpx.AsyncClient(base_url=guarded.url, trust_env=False) as http:
        for token, answer in (("a-secret-that-is-wrong", "44"), (ADMIN, "40")):
            query = {"EIO": "3", "transport": "polling", "access_token": token}
            assert f":{answer}" in (await http.get("/socket.io/", params=query)).text
    log = guarded.log.read_text()
    assert "secret" not in log
    assert ADMIN not in log


async def handshakes(url: str, origin: str) -> tuple[int, bool]:
    """Try to begin a session as a page of `origin`: the status of a poll, and whether a WebSocket opens."""
    query = "/socket.io/?EIO=4&transport="
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        answer = await http.get(f"{query}polling", headers={"Origin": origin})
    try:
        async with connect(url.replace("http:", "ws:") + f"{query}websocket", proxy=None, origin=Origin(origin)):
            opened = True
    except InvalidStatus:
        opened = False
    return answer.status_code, opened


async def test_pages_of_other_sites_may_not_connect(server: RunningServer) -> None:
    for origin in ("http://elsewhere.test", "null", "http://127.0.0.1:1", server.url + ".elsewhere.test", "file://"):
        assert await handshakes(server.url, origin) == (403, False), origin
    assert await handshakes(server.url, server.url) == (200, True)


async def test_pages_of_allowed_sites_may(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--cors-origins", "https://pages.test")
    assert await handshakes(server.url, "https://pages.test") == (200, True)
    assert await handshakes(server.url, "https://other.test") == (403, False)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        query = "/socket.io/?EIO=4&transport=polling"
        answer = await http.get(query, headers={"Origin": "https://pages.test"})
        assert answer.headers.get_list("access-control-allow-origin") == ["https://pages.test"]
        asked = {"Origin": "https://pages.test", "Access-Control-Request-Method": "GET"}
        allowed = await http.options(query, headers={**asked, "Access-Control-Request-Headers": "authorization"})
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == "https://pages.test"
