"""Limits hold across connections, doors and servers: two processes share one database."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.accounts.people import People, program, within
from tests.support.server import RunningServer
from tests.support.services import RedisServer
from tests.support.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
PISTON = {"language": "bash", "version": "*", "files": [{"content": "echo hello"}]}

StartServer = Callable[..., RunningServer]
Pair = tuple[RunningServer, RunningServer]


@pytest.fixture
def pair(start_server: StartServer, people: People) -> tuple[RunningServer, RunningServer]:
    """Two servers of one database."""
    flags = ("--slots", "8", "--require-login")
    return start_server(*flags, env=people.environment()), start_server(*flags, env=people.environment())


def start_live(server: RunningServer, token: str) -> dict[str, Any]:
    with connect(f"{server.live_url}?access_token={token}", proxy=None) as socket:
        socket.send(json.dumps({"type": "start", **program()}))
        return dict(json.loads(socket.recv(timeout=60)))


def start_piston_socket(server: RunningServer, token: str) -> dict[str, Any]:
    url = server.url.replace("http", "ws") + f"/api/v2/connect?access_token={token}"
    with connect(url, proxy=None) as socket:
        socket.send(json.dumps({"type": "init", **PISTON}))
        return dict(json.loads(socket.recv(timeout=60)))


def test_runs_a_minute_hold_across_doors_connections_and_servers(pair: Pair, people: People) -> None:
    names = (f"user{number}" for number in count())

    def attempt() -> tuple[list[bool], list[httpx.Response]]:
        name = next(names)
        token = people.add(name, "--runs-per-minute", "6")
        taken: list[bool] = []
        refusals: list[httpx.Response] = []
        for server in (*pair, *pair):
            with people.client(server, name) as client:
                for path, body, headers in (
                    ("/api/v1/runs", program(), {}),
                    ("/api/v1/runs", program(), ASYNC),
                    ("/api/v2/execute", PISTON, {}),
                ):
                    answer = client.post(path, json=body, headers=headers)
                    taken.append(answer.is_success)
                    refusals += [] if answer.is_success else [answer]
        taken.append(start_live(pair[0], token)["type"] != "error")
        taken.append(start_piston_socket(pair[1], token)["type"] != "error")
        return taken, refusals

    taken, refusals = within(60, attempt)
    assert taken == [True] * 6 + [False] * 8
    for refusal in refusals:
        assert refusal.status_code == 429
        assert 1 <= int(refusal.headers["retry-after"]) <= 60
        assert "runs per minute" in refusal.text


def test_a_refused_job_that_could_never_run_counts_for_nothing(pair: Pair, people: People) -> None:
    names = (f"user{number}" for number in count())

    def attempt() -> list[int]:
        name = next(names)
        people.add(name, "--runs-per-minute", "1")
        with people.client(pair[0], name) as client:
            wrong = [client.post("/api/v1/runs", json={"language": "bash"}), client.post("/api/v1/runs", content=b"{")]
            right = [client.post("/api/v1/runs", json=program()) for _ in range(2)]
        assert all(400 <= answer.status_code < 429 for answer in wrong)
        return [answer.status_code for answer in right]

    assert within(60, attempt) == [200, 429]


def test_runs_at_once_hold_when_everything_comes_at_once(pair: Pair, people: People) -> None:
    people.add("ann", "--concurrent-runs", "3")
    with people.client(pair[0], "ann") as first, people.client(pair[1], "ann") as second, ThreadPoolExecutor(16) as threads:

        def submit(number: int) -> httpx.Response:
            return (first, second)[number % 2].post("/api/v1/runs", json=program("sleep 50"), headers=ASYNC)

        answers = list(threads.map(submit, range(16)))
        taken = [(number % 2, answer.json()["id"]) for number, answer in enumerate(answers) if answer.status_code == 202]
        assert len(taken) == 3
        assert {answer.status_code for answer in answers} == {202, 429}
        assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 429} == {"1"}
        which, run_id = taken[0]
        (first, second)[which].delete(f"/api/v1/runs/{run_id}")
        wait_until(lambda: submit(1 - which).status_code == 202)  # the place is free once all of the run is gone
        assert submit(0).status_code == 429


def test_a_disconnected_client_releases_its_lease(pair: Pair, people: People) -> None:
    people.add("ann", "--concurrent-runs", "1")
    for _ in range(3):
        body = json.dumps(program("sleep 50")).encode()
        with pair[0].connect() as connection:
            connection.sendall(
                f"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {people.tokens['ann']}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            with people.client(pair[1], "ann") as other:
                wait_until(lambda: other.get(f"{pair[0].url}/api/v1/health").json()["in_flight"] > 0)
                assert other.post("/api/v1/runs", json=program()).status_code == 429
        with people.client(pair[1], "ann") as other:
            wait_until(lambda: other.post("/api/v1/runs", json=program()).status_code != 429)


def test_processor_time_adds_up_across_servers_and_ends_with_the_day(pair: Pair, people: People) -> None:
    names = (f"user{number}" for number in count())
    busy = program("s=$SECONDS; while :; do :; done", limits={"run": {"cpu_ms": 600, "wall_ms": 20_000}})

    def attempt() -> list[httpx.Response]:
        name = next(names)
        people.add(name, "--cpu-seconds-per-day", "1")
        with people.client(pair[0], name) as first, people.client(pair[1], name) as second:
            return [client.post("/api/v1/runs", json=busy) for client in (first, second, first, second)]

    answers = within(86_400, attempt)
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert all(1 <= int(answer.headers["retry-after"]) <= 86_400 for answer in answers[2:])


def test_a_run_that_its_client_left_is_charged_for_what_it_used(pair: Pair, people: People) -> None:
    names = (f"user{number}" for number in count())
    code = "import time\nwhile time.process_time() < 1.1:\n    pass\nprint('used', flush=True)\ntime.sleep(50)"
    body = {"type": "start", "language": "python", "code": code, "limits": {"run": {"cpu_ms": 10_000, "wall_ms": 20_000}}}

    def attempt() -> int:
        name = next(names)
        people.add(name, "--cpu-seconds-per-day", "1")
        with people.client(pair[0], name) as client:
            with connect(f"{pair[0].live_url}?access_token={people.tokens[name]}", proxy=None) as socket:
                socket.send(json.dumps(body))
                while json.loads(socket.recv(timeout=60)).get("data") != "used\n":
                    pass
            wait_until(lambda: not client.get("/api/v1/health").json()["in_flight"])
            with people.client(pair[1], name) as other:
                return other.post("/api/v1/runs", json=program()).status_code

    assert within(86_400, attempt) == 429


def test_flooding_the_queue_does_not_delay_others(pair: Pair, people: People) -> None:
    people.add("ann", "--concurrent-runs", "4")
    people.add("bob")
    with people.client(pair[0], "ann") as ann, people.client(pair[0], "bob") as bob, ThreadPoolExecutor(8) as threads:
        flood = list(
            threads.map(lambda _: ann.post("/api/v1/runs", json=program("sleep 50"), headers=ASYNC).status_code, range(100))
        )
        assert flood.count(202) == 4
        assert flood.count(429) == 96
        assert bob.get("/api/v1/health").json()["in_flight"] == 4
        assert bob.post("/api/v1/runs", json=program()).json()["run"]["stdout"] == "hello\n"


def test_addresses_have_limits_of_their_own(start_server: StartServer, people: People) -> None:
    server = start_server("--anonymous-concurrent-runs", "1", env=people.environment())
    people.add("ann")
    with people.client(server, None) as anonymous, people.client(server, "ann") as ann:
        run_id = anonymous.post("/api/v1/runs", json=program("sleep 50"), headers=ASYNC).json()["id"]
        assert anonymous.post("/api/v1/runs", json=program()).status_code == 429
        assert ann.post("/api/v1/runs", json=program()).status_code == 200
        anonymous.delete(f"/api/v1/runs/{run_id}")
        wait_until(lambda: anonymous.post("/api/v1/runs", json=program()).status_code != 429)


def test_counters_that_are_gone_close_the_door_to_those_with_limits_only(
    start_server: StartServer, people: People, tmp_path: Path
) -> None:
    with RedisServer() as redis:
        people.add("ann", "--runs-per-minute", "1000")
        people.add("bob")
        server = start_server("--require-login", "--redis-url", redis.url, env=people.environment())
        with people.client(server, "ann") as ann, people.client(server, "bob") as bob:
            assert ann.post("/api/v1/runs", json=program()).status_code == 200
            redis.kill()
            for headers in ({}, ASYNC):
                answer = ann.post("/api/v1/runs", json=program(), headers=headers)
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
            assert bob.post("/api/v1/runs", json=program()).status_code == 200
            redis.start()
            wait_until(lambda: ann.post("/api/v1/runs", json=program()).status_code != 503)
