"""The WebSocket: one interactive job a connection, and everything a client can do wrong with it."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from firebox.doors.piston.routes import PREFIXES
from tests.conftest import require_tool
from tests.piston.health import health
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

CLOSED = {
    4999: "Job Completed",
    4000: "Already Initialized",
    4001: "Initialization Timeout",
    4002: "Notified Error",
    4003: "Not yet initialized",
    4004: "Can only write to stdin",
    4005: "Invalid signal",
}


class Session:
    """A connection, its messages in order, and how it ended."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, message: Any) -> None:
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def start(self, code: str, language: str = "bash", **more: Any) -> None:
        self.send({"type": "init", "language": language, "version": "*", "files": [{"content": code}], **more})

    def stdin(self, data: str) -> None:
        self.send({"type": "data", "stream": "stdin", "data": data})

    def signal(self, name: object) -> None:
        self.send({"type": "signal", "signal": name})

    def receive(self) -> Any:
        return json.loads(self.connection.recv(timeout=60))

    def read_until(self, text: str) -> str:
        """Receive until the output so far ends in a text; return that output."""
        output = ""
        while not output.endswith(text):
            message = self.receive()
            output += message["data"] if message["type"] == "data" else ""
        return output

    def rest(self) -> tuple[list[Any], int]:
        """Receive to the end. Returns the messages and the close code, whose reason is checked."""
        messages: list[Any] = []
        with suppress(ConnectionClosed):
            while True:
                messages.append(self.receive())
        code, reason = self.connection.close_code, self.connection.close_reason
        assert code is not None
        assert CLOSED.get(code) == reason, messages
        return messages, code


OpenSession = Callable[..., Session]


@pytest.fixture
def open_session() -> Iterator[OpenSession]:
    """Open connections that close with the test."""
    with ExitStack() as stack:

        def open_(server: RunningServer, prefix: str = PREFIXES[0], **options: Any) -> Session:
            url = server.url.replace("http://", "ws://") + prefix + "/connect"
            return Session(stack.enter_context(connect(url, proxy=None, **options)))

        yield open_


@pytest.fixture
def session(server: RunningServer, open_session: OpenSession) -> Session:
    return open_session(server)


def text_of(messages: list[Any], stream: str = "stdout") -> str:
    return "".join(message["data"] for message in messages if message["type"] == "data" and message["stream"] == stream)


def without_data(messages: list[Any]) -> list[Any]:
    return [message for message in messages if message["type"] != "data"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_job_from_init_to_close(server: RunningServer, open_session: OpenSession, prefix: str) -> None:
    session = open_session(server, prefix)
    session.start("echo $1; echo bad >&2; exit 3", args=["a b"])
    messages, code = session.rest()
    runtime = messages[0]
    assert runtime.keys() == {"type", "language", "version"}
    assert runtime["language"] == "bash"
    assert without_data(messages) == [
        runtime,
        {"type": "stage", "stage": "run"},
        {"type": "exit", "stage": "run", "code": 3, "signal": None},
    ]
    assert text_of(messages) == "a b\n"
    assert text_of(messages, "stderr") == "bad\n"
    assert code == 4999


def test_a_compiled_job_has_two_stages(session: Session) -> None:
    require_tool("gcc")
    session.start('#include <stdio.h>\nint main(void) { puts("built"); return 0; }', "c")
    messages, code = session.rest()
    assert without_data(messages)[1:] == [
        {"type": "stage", "stage": "compile"},
        {"type": "exit", "stage": "compile", "code": 0, "signal": None},
        {"type": "stage", "stage": "run"},
        {"type": "exit", "stage": "run", "code": 0, "signal": None},
    ]
    assert text_of(messages) == "built\n"
    assert code == 4999


def test_a_job_that_does_not_compile_has_one(session: Session) -> None:
    require_tool("gcc")
    session.start("int main(void) { return nothing; }", "c")
    messages, code = session.rest()
    assert without_data(messages)[1:] == [
        {"type": "stage", "stage": "compile"},
        {"type": "exit", "stage": "compile", "code": 1, "signal": None},
    ]
    assert "nothing" in text_of(messages, "stderr")
    assert code == 4999


def test_input_and_output_take_turns_while_the_program_runs(session: Session) -> None:
    session.start("for i in 1 2 3; do read -p '' line; echo \"got $line\"; done")
    for word in ("one", "zwei", "trois é"):
        session.stdin(word + "\n")
        assert session.read_until("\n") == f"got {word}\n"
    assert session.rest() == ([{"type": "exit", "stage": "run", "code": 0, "signal": None}], 4999)


def test_input_that_comes_before_the_program_waits_for_it(session: Session) -> None:
    session.start("read a; read b; echo $a$b")
    session.stdin("1\n")
    session.stdin("2\n")
    assert text_of(session.rest()[0]) == "12\n"


def test_init_has_no_input_and_a_stdin_in_it_means_nothing(session: Session) -> None:
    session.start("read line; echo $line", stdin=1)
    session.stdin("later\n")
    assert text_of(session.rest()[0]) == "later\n"


def test_a_character_in_two_pieces_arrives_whole(session: Session) -> None:
    session.start(r"printf '\xc3'; sleep 0.1; printf '\xa9\xf0\x9f'; sleep 0.1; printf '\x98\x80\xff\xe2\x82'")
    assert text_of(session.rest()[0]) == "é😀\ufffd\ufffd"


def test_a_time_limit_ends_the_stage(session: Session) -> None:
    session.start("sleep 50", run_timeout=200)
    assert session.rest()[0][-1] == {"type": "exit", "stage": "run", "code": None, "signal": "SIGKILL"}


SHOW_SIGNAL = """
import signal, subprocess, sys
# Blocked until it is waited for: one that comes early is not lost.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
child = None if sys.argv[1:] else subprocess.Popen([sys.executable, __file__, "child"], stdout=subprocess.PIPE)
if child:
    child.stdout.readline()
print("ready", flush=True)
print(sys.argv[1:] or "parent", signal.Signals(signal.sigwait({signal.SIGUSR1})).name, flush=True)
if child:
    print(child.communicate()[0].decode().strip())
"""


def test_a_signal_reaches_every_process_of_the_group(session: Session) -> None:
    session.start(SHOW_SIGNAL, "python")
    session.read_until("ready\n")
    session.signal("SIGUSR1")
    messages, _ = session.rest()
    assert text_of(messages) == "parent SIGUSR1\n['child'] SIGUSR1\n"
    assert messages[-1] == {"type": "exit", "stage": "run", "code": 0, "signal": None}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGHUP", "SIGINT"])
def test_a_signal_that_nobody_handles_ends_the_program(session: Session, name: str) -> None:
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready', flush=True); sys.stdin.read()"
    session.start(code, "python")
    session.read_until("ready\n")
    session.signal(name)
    assert session.rest() == ([{"type": "exit", "stage": "run", "code": None, "signal": name}], 4999)


def test_no_init_is_4001(session: Session) -> None:
    assert session.rest() == ([], 4001)


def test_messages_of_unknown_types_are_no_init(session: Session) -> None:
    unknown: list[Any] = [{"type": "ping"}, {}, [], {"type": None}, {"type": ["init"]}]
    for message in unknown:
        session.send(message)
    assert session.rest() == ([], 4001)


def test_two_inits_are_4000(server: RunningServer, session: Session) -> None:
    session.start("sleep 50", run_timeout=60_000)
    session.start("sleep 50", run_timeout=60_000)
    messages, code = session.rest()
    assert code == 4000
    assert not [message for message in messages if message["type"] in ("exit", "error")]
    wait_until(lambda: health(server)["in_flight"] == 0)


@pytest.mark.parametrize("message", [{"type": "data", "stream": "stdin", "data": "x"}, {"type": "signal", "signal": "SIGINT"}])
def test_anything_before_init_is_4003(session: Session, message: dict[str, str]) -> None:
    session.send(message)
    assert session.rest() == ([], 4003)


@pytest.mark.parametrize("stream", ["stdout", "stderr", None, 0, ["stdin"]])
def test_data_for_another_stream_is_4004(session: Session, stream: object) -> None:
    session.start("sleep 50")
    session.send({"type": "data", "stream": stream, "data": "x"})
    assert session.rest()[1] == 4004


@pytest.mark.parametrize("name", ["SIGNOTHING", "INT", "", 2, None, ["SIGINT"], {}, "SIGINT\n"])
def test_an_unknown_signal_is_4005(session: Session, name: object) -> None:
    session.start("sleep 50")
    session.signal(name)
    assert session.rest()[1] == 4005


BAD_INITS = {
    "language missing": ({"version": "*", "files": []}, "language is required as a string"),
    "files missing": ({"language": "bash", "version": "*"}, "files is required as an array"),
    "no such language": ({"language": "klingon", "version": "1", "files": []}, "klingon-1 runtime is unknown"),
    "limit too high": (
        {"language": "bash", "version": "*", "files": [{"content": ""}], "run_timeout": 1e9},
        "run_timeout cannot exceed the configured limit of 60000",
    ),
    "a name outside": (
        {"language": "bash", "version": "*", "files": [{"content": "", "name": "/etc/passwd"}]},
        "files[0].name: '/etc/passwd' is absolute",
    ),
}


@pytest.mark.parametrize(("body", "words"), BAD_INITS.values(), ids=BAD_INITS)
def test_an_init_that_cannot_be_is_an_error_and_4002(session: Session, body: dict[str, Any], words: str) -> None:
    session.send({"type": "init", **body})
    assert session.rest() == ([{"type": "error", "message": words}], 4002)


FRAMES = {
    "no JSON": "init",
    "truncated": '{"type": "init"',
    "a number": "1",
    "null": "null",
    "empty": "",
    "NaN": '{"type": NaN}',
    "deep": "[" * 1_000_000,
    "binary": b"\x00\xff\xfe",
    "binary and empty": b"",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("running", [False, True], ids=["before init", "while running"])
def test_a_frame_that_is_no_object_is_an_error_and_4002(
    server: RunningServer, session: Session, frame: str | bytes, running: bool
) -> None:
    if running:
        session.start("sleep 50", run_timeout=60_000)
    session.send(frame)
    messages, code = session.rest()
    assert code == 4002
    assert messages[-1].keys() == {"type", "message"}
    assert messages[-1]["type"] == "error"
    wait_until(lambda: health(server)["in_flight"] == 0)


@pytest.mark.parametrize("data", [None, 1, ["x"], "\ud800"])
def test_input_that_is_no_text_is_an_error_and_4002(session: Session, data: object) -> None:
    session.start("sleep 50")
    session.send({"type": "data", "stream": "stdin", "data": data})
    messages, code = session.rest()
    assert (messages[-1]["type"], code) == ("error", 4002)


def test_a_binary_frame_may_hold_a_message(session: Session) -> None:
    session.send(json.dumps({"type": "init", "language": "bash", "version": "*", "files": [{"content": "echo 1"}]}).encode())
    assert text_of(session.rest()[0]) == "1\n"


def test_a_huge_frame_closes_the_connection(server: RunningServer, session: Session) -> None:
    session.start("sleep 50", run_timeout=60_000)
    # The server may have closed before everything was sent.
    with suppress(ConnectionClosed):
        session.send("x" * (5 << 20))
    with pytest.raises(ConnectionClosed) as closed:
        _ = [session.receive() for _ in range(3)]
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_a_flood_of_signals_does_no_harm(session: Session) -> None:
    session.start("echo ready; read line; echo $line")
    session.read_until("ready\n")
    for name in ("SIGCONT", "SIGWINCH", "SIGURG") * 1000:
        session.signal(name)
    session.stdin("still here\n")
    assert text_of(session.rest()[0]) == "still here\n"


def test_a_flood_of_empty_messages_does_no_harm(session: Session) -> None:
    session.start("echo ready; read line; echo $line")
    session.read_until("ready\n")
    for _ in range(5000):
        session.stdin("")
        session.send({})
    session.stdin("still here\n")
    assert text_of(session.rest()[0]) == "still here\n"


def test_a_client_that_vanishes_takes_its_job_along(server: RunningServer, session: Session) -> None:
    session.start("echo ready; sleep 50", run_timeout=60_000)
    session.read_until("ready\n")
    assert health(server)["in_flight"] >= 1
    session.connection.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_a_client_that_leaves_in_order_takes_its_job_along(server: RunningServer, session: Session) -> None:
    session.start("echo ready; sleep 50", run_timeout=60_000)
    session.read_until("ready\n")
    session.connection.close()
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_a_client_that_vanishes_from_the_queue_leaves_it(
    start_server: Callable[..., RunningServer], open_session: OpenSession
) -> None:
    server = start_server("--interactive-slots", "1")
    first, second = open_session(server), open_session(server)
    first.start("echo ready; sleep 50", run_timeout=60_000)
    first.read_until("ready\n")
    second.start("echo second")
    wait_until(lambda: health(server)["queued"] == 1)
    second.signal("SIGINT")
    second.stdin("x")
    second.connection.close()
    wait_until(lambda: health(server)["queued"] == 0)
    first.connection.close()
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_a_full_queue_is_an_error_and_4002(start_server: Callable[..., RunningServer], open_session: OpenSession) -> None:
    server = start_server("--interactive-slots", "1", "--queue-length", "0")
    first, second = open_session(server), open_session(server)
    first.start("echo ready; sleep 50", run_timeout=60_000)
    first.read_until("ready\n")
    second.start("echo second")
    assert second.rest() == ([{"type": "error", "message": "all 1 slots are busy and 0 jobs wait"}], 4002)
    first.connection.close()


def resident_bytes(server: RunningServer) -> int:
    with open(f"/proc/{server.process.pid}/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_raw(server: RunningServer, *messages: dict[str, Any]) -> socket.socket:
    """Open a connection by hand, send masked frames, and never read: a library would read on its own."""
    connection = server.connect()
    connection.sendall(
        b"GET /api/v2/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, answer
        answer += byte
    for message in messages:
        connection.sendall(frame(json.dumps(message).encode()))
    return connection


def frame(data: bytes) -> bytes:
    """Make a text frame, masked with zeros. Source: RFC 6455, section 5.2."""
    size = len(data)
    if size < 126:
        head = bytes([0x81, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x81, 0x80 | 126]) + size.to_bytes(2)
    else:
        head = bytes([0x81, 0x80 | 127]) + size.to_bytes(8)
    return head + bytes(4) + data


def init(code: str, **more: Any) -> dict[str, Any]:
    return {"type": "init", "language": "bash", "version": "*", "files": [{"content": code}], **more}


FLOODS = {
    "large pieces": "yes {marker}",
    "both streams": "yes {marker} | tee /dev/stderr",
    "small pieces": "while :; do echo a; echo b >&2; done # {marker}",
}


def is_running(marker: str) -> bool:
    """Say whether a program of this machine has a word in its command line."""
    return any(marker.encode() in words for words in map(command_line, Path("/proc").glob("[0-9]*/cmdline")))


def command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_client_that_does_not_read_costs_no_memory_and_its_job_dies(
    start_server: Callable[..., RunningServer], open_session: OpenSession, flood: str
) -> None:
    server = start_server("--interactive-slots", "1", "--run-output-bytes", "64MiB", "--max-run-output-bytes", "64MiB")
    marker = f"flood-{uuid4().hex}"
    before = resident_bytes(server)
    code = f"bash -c {shlex.quote(flood.format(marker=marker))}"
    with open_raw(server, init(code, run_timeout=1500)):
        wait_until(lambda: is_running(marker))
        wait_until(lambda: not is_running(marker))
        wait_until(lambda: health(server)["in_flight"] == 0)
        assert resident_bytes(server) - before < 60 << 20
        # The server goes on with others meanwhile.
        other = open_session(server)
        other.start("echo other")
        assert text_of(other.rest()[0]) == "other\n"


def test_a_client_that_sends_without_end_costs_no_memory_and_its_job_dies(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server("--interactive-slots", "1")
    before = resident_bytes(server)
    data = frame(json.dumps({"type": "data", "stream": "stdin", "data": "x" * 1_000_000}).encode())
    sent_bytes = 0
    with open_raw(server, init("sleep 50", run_timeout=1500)) as connection:
        wait_until(lambda: health(server)["in_flight"] == 1)
        connection.settimeout(0.2)
        try:
            while True:
                sent_bytes += connection.send(data[sent_bytes % len(data) :])
        except OSError:
            assert sent_bytes < 20 << 20
        wait_until(lambda: health(server)["in_flight"] == 0)
    assert resident_bytes(server) - before < 60 << 20


def test_a_page_of_another_site_may_not_connect(server: RunningServer, open_session: OpenSession) -> None:
    with pytest.raises(InvalidStatus) as refused:
        open_session(server, origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403


def test_a_page_of_the_same_site_may(server: RunningServer, open_session: OpenSession) -> None:
    session = open_session(server, origin=server.url)
    session.start("echo 1")
    assert text_of(session.rest()[0]) == "1\n"


def test_a_get_without_an_upgrade_is_404(server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/api/v2/connect", timeout=60, trust_env=False)
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


def test_an_upgrade_elsewhere_is_refused(server: RunningServer, open_session: OpenSession) -> None:
    with pytest.raises(InvalidStatus):
        open_session(server, "/api/v2/elsewhere")


def test_nothing_of_that_was_a_bug(server: RunningServer, open_session: OpenSession, session: Session) -> None:
    for sent in FRAMES.values():
        wrong = open_session(server)
        wrong.start("sleep 50")
        wrong.send(sent)
        wrong.rest()
    session.start("true")
    session.rest()
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "bug" not in log
    assert "never retrieved" not in log
