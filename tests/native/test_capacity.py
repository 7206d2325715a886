"""Overload, and shutdown."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.server import RunningServer
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}


def body(code: str) -> dict[str, Any]:
    return {"language": "bash", "code": code}


def wait_for(client: httpx.Client, **wanted: int) -> None:
    """Wait until the server reports this state."""

    def reached() -> bool:
        answer = client.get("/health").json()
        return all(answer[name] == value for name, value in wanted.items())

    wait_until(reached, f"{wanted}")


@pytest.fixture
def narrow(start_server: Callable[..., RunningServer]) -> RunningServer:
    """A server with one slot and a queue of one."""
    return start_server("--slots", "1", "--queue-length", "1")


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def post(pool: ThreadPoolExecutor, client: httpx.Client, code: str) -> Future[httpx.Response]:
    return pool.submit(client.post, "/runs", json=body(code))


def test_a_full_queue_is_429_with_a_time_to_come_back(narrow: RunningServer) -> None:
    with narrow.client() as client:
        running = client.post("/runs", json=body("sleep 50"), headers=ASYNC).json()["id"]
        wait_for(client, in_flight=1)
        waiting = client.post("/runs", json=body("echo waited"), headers=ASYNC).json()
        assert waiting["state"] == "queued"
        for headers in ({}, ASYNC):
            answer = client.post("/runs", json=body("true"), headers=headers)
            assert answer.status_code == 429
            assert answer.json()["error"]["code"] == "capacity.queue_full"
            assert int(answer.headers["retry-after"]) >= 1
        with connect(narrow.live_url, proxy=None) as socket:
            socket.send(json.dumps({"type": "start", **body("true")}))
            assert json.loads(socket.recv(timeout=60))["type"] == "started"  # interactive runs have slots of their own
        client.delete(f"/runs/{running}")
        wait_until(lambda: client.get(f"/runs/{waiting['id']}").json()["state"] == "ended")
        state = client.get(f"/runs/{waiting['id']}").json()
        assert state["result"]["run"]["stdout"] == "waited\n"
        assert state["result"]["timings"]["queue_ms"] > 0


def test_a_run_that_waits_can_be_cancelled(narrow: RunningServer) -> None:
    with narrow.client() as client:
        client.post("/runs", json=body("sleep 50"), headers=ASYNC)
        waiting = client.post("/runs", json=body("true"), headers=ASYNC).json()["id"]
        state = client.delete(f"/runs/{waiting}").json()
        assert (state["state"], state["result"]["verdict"], state["result"]["run"]) == ("ended", "cancelled", None)
        assert client.get("/health").json()["queued"] == 0
        assert "finished" in client.get(f"/runs/{waiting}/events").text


def test_a_client_that_leaves_the_queue_makes_room(narrow: RunningServer) -> None:
    with narrow.client() as client:
        running = client.post("/runs", json=body("sleep 50"), headers=ASYNC).json()["id"]
        content = json.dumps(body("true")).encode()
        headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
        head = f"POST /api/v1/runs HTTP/1.1\r\n{headers}\r\n\r\n"
        with narrow.connect() as connection:
            connection.sendall(head.encode() + content)
            wait_for(client, queued=1)
        wait_for(client, queued=0)
        client.delete(f"/runs/{running}")


def test_stopping_lets_programs_end_and_takes_no_new_ones(
    start_server: Callable[..., RunningServer], callers: ThreadPoolExecutor
) -> None:
    server = start_server("--slots", "2")
    with server.client() as client, server.client() as other:
        running = post(callers, client, "sleep 1; echo ended by itself")
        wait_for(other, in_flight=1)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: other.get("/health").json()["status"] == "stopping")
        assert other.get("/health").status_code == 503
        answer = other.post("/runs", json=body("true"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "capacity.shutting_down")
        assert int(answer.headers["retry-after"]) >= 1
        assert running.result().json()["run"]["stdout"] == "ended by itself\n"
    assert server.process.wait(timeout=60) == 0


def test_a_second_signal_stops_at_once(start_server: Callable[..., RunningServer], callers: ThreadPoolExecutor) -> None:
    server = start_server()
    with server.client() as client, server.client() as other:
        running = post(callers, client, "sleep 50")
        wait_for(other, in_flight=1)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: other.get("/health").json()["status"] == "stopping")
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=60)
        with suppress(httpx.HTTPError):  # whether the answer still gets out is a race
            assert running.result().json()["verdict"] == "cancelled"
    assert "Traceback" not in server.log.read_text()


def test_readers_of_events_are_let_go_at_the_end(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    heard: list[str] = []
    with server.client() as client:
        run_id = client.post("/runs", json=body("echo a; sleep 0.5; echo b"), headers=ASYNC).json()["id"]
        reader = threading.Thread(target=lambda: heard.append(client.get(f"/runs/{run_id}/events").text))
        reader.start()
        assert server.stop() == 0
        reader.join(timeout=60)
    assert "finished" in heard[0]
