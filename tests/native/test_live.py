"""`WS /runs/live`: interactive runs, and clients that violate the protocol."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import RunningServer
from tests.support.waiting import wait_until

BROKEN = 1006


def open_live(server: RunningServer, **options: Any) -> ClientConnection:
    connection: ClientConnection = connect(server.live_url, proxy=None, max_size=None, open_timeout=60, **options)
    return connection


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def start(socket: ClientConnection, code: str, **body: Any) -> None:
    say(socket, type="start", language="bash", code=code, **body)


def hear(socket: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(socket.recv(timeout=60)))


def hear_until(socket: ClientConnection, type_: str) -> list[dict[str, Any]]:
    heard = [hear(socket)]
    while heard[-1]["type"] != type_:
        heard.append(hear(socket))
    return heard


def text_until(socket: ClientConnection, words: str) -> str:
    heard = ""
    while words not in heard:
        message = hear(socket)
        assert message["type"] in {"started", "stage_started", "output"}, message
        heard += message.get("data", "")
    return heard


def text(messages: list[dict[str, Any]], stream: str = "stdout") -> str:
    return "".join(each["data"] for each in messages if each["type"] == "output" and each["stream"] == stream)


def close_code(socket: ClientConnection) -> int:
    try:
        while True:
            socket.recv(timeout=60)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else BROKEN


def refused(socket: ClientConnection) -> tuple[dict[str, Any], int]:
    error = hear_until(socket, "error")[-1]["error"]
    assert "Traceback" not in json.dumps(error)
    return error, close_code(socket)


def break_connection(socket: ClientConnection) -> None:
    """Drop the connection below the protocol: no close frame, and a TCP reset."""
    socket.socket.setsockopt(SOL_SOCKET, SO_LINGER, b"\1\0\0\0\0\0\0\0")
    socket.socket.shutdown(SHUT_RDWR)


def wait_until_idle(client: httpx.Client) -> None:
    wait_until(lambda: not client.get("/health").json()["in_flight"])


def test_a_run_from_start_to_end(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, "echo out; echo err >&2; exit 2")
        heard = hear_until(socket, "finished")
        assert [each["type"] for each in heard[:2]] == ["started", "stage_started"]
        assert (text(heard), text(heard, "stderr")) == ("out\n", "err\n")
        result = heard[-1]["result"]
        assert (result["verdict"], result["run"]["exit_code"]) == ("runtime_error", 2)
        assert result["id"] == heard[0]["id"]
        assert close_code(socket) == 1000


def test_a_conversation(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, 'read first; echo "first $first"; while read line; do echo "got $line"; done; echo bye', stdin="0\n")
        text_until(socket, "first 0")
        for number in range(3):
            say(socket, type="stdin", data=f"é{number}\n")
            text_until(socket, f"got é{number}\n")
        say(socket, type="stdin", base64=base64.b64encode(b"last\n").decode())
        say(socket, type="eof")
        assert text(hear_until(socket, "finished")).endswith("got last\nbye\n")


def test_much_input_arrives_whole(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, "sleep 0.2; wc -c")
        for _ in range(40):
            say(socket, type="stdin", data="x" * 100_000)
        say(socket, type="eof")
        assert text(hear_until(socket, "finished")).strip() == "4000000"


def test_a_signal_reaches_the_program(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.01; done")
        text_until(socket, "ready")
        say(socket, type="signal", signal="SIGINT")
        heard = hear_until(socket, "finished")
        assert text(heard) == "caught\n"
        assert heard[-1]["result"]["run"]["exit_code"] == 7


def test_a_terminal_and_its_size(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(
            socket,
            "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.01; done",
            terminal={"rows": 20, "columns": 70},
        )
        assert "20 70" in text_until(socket, "ready")
        say(socket, type="resize", rows=41, columns=101)
        text_until(socket, "41 101")
        say(socket, type="cancel")
        assert hear_until(socket, "finished")[-1]["result"]["verdict"] == "cancelled"


def test_exact_bytes_on_request(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, "printf 'a\\xff'", base64=True)
        heard = hear_until(socket, "finished")
        assert b"".join(base64.b64decode(each["base64"]) for each in heard if each["type"] == "output") == b"a\xff"
        assert text(heard) == "a�"


def test_a_client_that_leaves_ends_the_run(server: RunningServer, client: httpx.Client) -> None:
    with open_live(server) as socket:
        start(socket, "echo ready; sleep 50")
        text_until(socket, "ready")
    wait_until_idle(client)


def test_a_client_whose_connection_breaks_ends_the_run(server: RunningServer, client: httpx.Client) -> None:
    with suppress(ConnectionClosed, OSError), open_live(server) as socket:
        start(socket, "echo ready; sleep 50")
        text_until(socket, "ready")
        break_connection(socket)
    wait_until_idle(client)


def test_a_client_that_leaves_while_its_input_is_not_read_ends_the_run(server: RunningServer, client: httpx.Client) -> None:
    with suppress(ConnectionClosed, OSError), open_live(server) as socket:
        start(socket, "echo ready; sleep 50")
        text_until(socket, "ready")
        for _ in range(8):  # less than is queued for a program that does not read
            say(socket, type="stdin", data="x" * 200_000)
        break_connection(socket)
    wait_until_idle(client)


def queued(client: httpx.Client) -> int:
    return int(client.get("/health").json()["queued"])


def test_a_client_that_leaves_the_queue_leaves_it_at_once(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--interactive-slots", "1")
    with server.client() as client, open_live(server) as first:
        start(first, "echo ready; sleep 50", limits={"run": {"wall_ms": 20_000}})
        text_until(first, "ready")
        for leave in (ClientConnection.close, break_connection):
            with suppress(ConnectionClosed, OSError), open_live(server) as second:
                start(second, "echo second")
                wait_until(lambda: queued(client) == 1)
                say(second, type="stdin", data="x")
                say(second, type="signal", signal="SIGINT")
                leave(second)
            wait_until(lambda: queued(client) == 0)
            assert client.get("/health").json()["in_flight"] == 1


def test_input_sent_while_queued_reaches_the_run(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--interactive-slots", "1")
    with server.client() as client, open_live(server) as first, open_live(server) as second, open_live(server) as third:
        start(first, "echo ready; read line")
        text_until(first, "ready")
        start(second, "cat")
        start(third, "sleep 50")
        wait_until(lambda: queued(client) == 2)
        say(second, type="stdin", data="early\n")
        say(second, type="eof")
        say(third, type="cancel")
        say(first, type="eof")
        assert text(hear_until(second, "finished")) == "early\n"
        assert hear_until(third, "finished")[-1]["result"]["verdict"] == "cancelled"


def test_a_signal_sent_while_queued_reaches_the_program(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--interactive-slots", "1")
    with server.client() as client, open_live(server) as first, open_live(server) as second:
        start(first, "echo ready; read line")
        text_until(first, "ready")
        start(second, "sleep 50")
        wait_until(lambda: queued(client) == 1)
        say(second, type="signal", signal="SIGTERM")
        wait_until(lambda: client.get("/health").json()["in_flight"] == 1)
        say(first, type="eof")
        result = hear_until(second, "finished")[-1]["result"]
        assert (result["verdict"], result["run"]["signal"]) == ("signal", "SIGTERM")


def test_a_person_may_take_time_but_not_fall_asleep(start_server: Callable[..., RunningServer]) -> None:
    """The default wall time applies to programs only; a client is gone after a long time without input and output."""
    flags = ("--run-wall-ms", "50", "--slots", "1", "--interactive-idle-ms", "1000", "--interactive-wall-ms", "60000")
    server = start_server(*flags)
    with server.client() as client, open_live(server) as socket:
        start(socket, "echo ready; sleep 0.3; read line; echo $line; read line")
        text_until(socket, "ready")
        program = {"language": "bash", "code": "sleep 20"}  # which the person does not keep waiting
        assert client.post("/runs", json=program).json()["verdict"] == "wall_time"
        say(socket, type="stdin", data="still here\n")
        text_until(socket, "still here")
        result = hear_until(socket, "finished")[-1]["result"]
    assert (result["verdict"], result["reason"]) == ("wall_time", "idle: no input and no output for 1000 ms")
    assert result["run"]["wall_ms"] > 1000


def test_a_bad_message_in_the_queue_is_answered_at_once(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--interactive-slots", "1")
    with server.client() as client, open_live(server) as first, open_live(server) as second:
        start(first, "echo ready; sleep 50", limits={"run": {"wall_ms": 20_000}})
        text_until(first, "ready")
        start(second, "echo second")
        wait_until(lambda: queued(client) == 1)
        start(second, "echo again")
        error, code = refused(second)
        assert "already started" in error["message"]
        assert code == 4400


@pytest.mark.parametrize(
    ("frame", "where", "words"),
    [
        ("", "line 1", "not JSON"),
        ("{", "line 1", "not JSON"),
        ("[]", "body", "object"),
        ("{}", "type", "required"),
        ('{"type": "begin"}', "type", "begin"),
        ('{"type": "stdin", "data": "x"}', "type", "first message"),
        ('{"type": "start"}', "language", "required"),
        ('{"type": "start", "language": "bash", "code": "", "colour": 1}', "colour", "unknown key"),
        ('{"type": "start", "language": "bash", "code": "", "limits": {"run": {"wall_ms": -1}}}', "limits.run.wall_ms", "-1"),
        ('{"type": "start", "language": "klingon", "code": ""}', "language", "klingon"),
        ("[" * 30_000, "", "nested"),
    ],
)
def test_an_invalid_start_is_rejected_with_an_explanation(server: RunningServer, frame: str, where: str, words: str) -> None:
    with open_live(server) as socket:
        socket.send(frame)
        error, code = refused(socket)
        assert error.get("where", "").startswith(where)
        assert words in error["message"]
        assert code == 4400


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("nonsense", "not JSON"),
        (b"\0\1", "binary"),
        ('{"type": "start", "language": "bash", "code": ""}', "already started"),
        ('{"type": "signal", "signal": "SIGFUN"}', "SIGFUN"),
        ('{"type": "signal", "signal": 2}', "expected `str`"),
        ('{"type": "resize", "rows": 0, "columns": 5}', "1 to 1000"),
        ('{"type": "stdin"}', "required"),
        ('{"type": "stdin", "data": "x", "base64": "eA=="}', "mutually exclusive"),
        ('{"type": "stdin", "base64": "?"}', "base64"),
        ('{"type": "stdin", "data": "\\ud800"}', "surrogate"),
    ],
)
def test_a_bad_message_ends_the_run(server: RunningServer, client: httpx.Client, frame: str | bytes, words: str) -> None:
    with open_live(server) as socket:
        start(socket, "echo ready; sleep 50")
        text_until(socket, "ready")
        socket.send(frame)
        error, code = refused(socket)
        assert words in error["message"]
        assert code == 4400
    wait_until_idle(client)


def test_a_huge_frame_closes_the_connection(server: RunningServer, client: httpx.Client) -> None:
    with open_live(server) as socket:
        start(socket, "echo ready; sleep 50")
        text_until(socket, "ready")
        with suppress(ConnectionClosed):
            socket.send("x" * (5 << 20))
        # The server does not read the rest of the frame: its reason may get lost with the connection.
        assert close_code(socket) in {1009, BROKEN}
    wait_until_idle(client)


@pytest.mark.slow
def test_text_that_is_none_closes_the_connection_without_a_traceback(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    with connect(server.live_url) as socket:
        socket.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_no_message_at_all_is_not_waited_for_for_ever(server: RunningServer) -> None:
    with open_live(server) as socket:
        error, code = refused(socket)
        assert "within 10 seconds" in error["message"]
        assert code == 4400


def test_messages_after_the_end_do_no_harm(server: RunningServer, client: httpx.Client) -> None:
    for _ in range(5):
        with open_live(server) as socket:
            start(socket, "true")
            for _ in range(50):
                try:
                    say(socket, type="signal", signal="SIGTERM")
                    say(socket, type="stdin", data="x")
                    say(socket, type="cancel")
                except ConnectionClosed:
                    break
    wait_until_idle(client)


def test_a_thousand_signals_are_only_signals(server: RunningServer) -> None:
    with open_live(server) as socket:
        start(socket, "trap : USR1; echo ready; while ! read -r line; do :; done; echo $line")
        text_until(socket, "ready")
        for _ in range(1000):
            say(socket, type="signal", signal="SIGUSR1")
        say(socket, type="stdin", data="done\n")
        assert hear_until(socket, "finished")[-1]["result"]["verdict"] == "ok"


def test_pages_of_other_sites_may_not_connect(server: RunningServer) -> None:
    with pytest.raises(InvalidStatus) as answer:
        open_live(server, origin="https://elsewhere.example")
    assert answer.value.response.status_code == 403
    with open_live(server, origin=server.url) as socket:
        start(socket, "true")
        hear_until(socket, "finished")


def test_a_client_that_does_not_read_makes_the_program_wait(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--max-run-output-bytes", "256MiB", "--max-run-wall-ms", "60s")
    limits = {"run": {"output_bytes": 256 << 20, "wall_ms": 30_000, "cpu_ms": 30_000}}
    with server.client() as client, open_live(server, max_queue=1) as socket:
        before = resident_bytes(server)
        start(socket, "head -c 200000000 /dev/zero | tr '\\0' x >&2; echo end", limits=limits)
        assert hear(socket)["type"] == "started"
        seen = -1
        while (grown := resident_bytes(server) - before) != seen:  # until it stands still
            assert grown < 64 << 20
            seen = grown
            time.sleep(0.2)
        assert client.get("/health").json()["in_flight"] == 1
        say(socket, type="cancel")
        assert len(text(hear_until(socket, "finished"), "stderr")) < 100_000_000


def resident_bytes(server: RunningServer) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
