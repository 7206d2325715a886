"""Runs from start to status, over both transports and over the change from one to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from firebox.doors.grounds.wire import CODE_CHARACTERS
from tests.grounds.conftest import TRANSPORTS, connected, text
from tests.support.server import RunningServer

every_transport = pytest.mark.parametrize("transport", [*TRANSPORTS, "upgrade"])


@every_transport
async def test_a_run_starts_writes_and_ends_with_its_status(server: RunningServer, transport: str) -> None:
    async with connected(server.url, transport) as client:
        assert await client.run("python3", "print(42)") == [
            {"stream": "start", "chunk": ""},
            {"stream": "stdout", "chunk": "42\n"},
            {"stream": "status", "chunk": 0},
        ]


@every_transport
async def test_output_arrives_while_the_program_runs(server: RunningServer, transport: str) -> None:
    """The second request ends the first program: it could not have ended by itself."""
    code = "import time\nprint('begun', flush=True)\ntime.sleep(1)\nprint('still here', flush=True)\ntime.sleep(600)"
    async with connected(server.url, transport) as client:
        await client.ask("python3", code)
        assert [reply["stream"] for reply in await client.hear_until("stdout", "begun")] == ["start", "stdout"]
        await client.hear_until("stdout", "still here")
        await client.ask("bash", "echo other")
        assert await client.hear_until("status") == [
            {"stream": "stop", "chunk": ""},
            {"stream": "start", "chunk": ""},
            {"stream": "stdout", "chunk": "other\n"},
            {"stream": "status", "chunk": 0},
        ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 127", 127),
        ("exit 128", -128),
        ("exit 255", -1),
        ("kill -KILL $$", 128 + 9 - 256),
        ("kill -TERM $$", 128 + 15 - 256),
        ("kill -SEGV $$", 128 + 11 - 256),
    ],
)
async def test_a_status_is_a_signed_byte(server: RunningServer, code: str, status: int) -> None:
    async with connected(server.url) as client:
        assert (await client.run("bash", code))[-1] == {"stream": "status", "chunk": status}


@pytest.mark.parametrize("request_", [{"code": ""}, {}, {"code": None}], ids=["empty", "no key", "null"])
async def test_empty_code_is_a_program(server: RunningServer, request_: dict[str, Any]) -> None:
    async with connected(server.url) as client:
        await client.io.emit("run", {"language": "python3", **request_})
        assert await client.hear_all() == [{"stream": "start", "chunk": ""}, {"stream": "status", "chunk": 0}]


async def test_compile_errors_are_written_to_stderr_before_the_status(server: RunningServer) -> None:
    async with connected(server.url) as client:
        replies = await client.run("c", "int main(void) { return undeclared; }")
    assert replies[0] == {"stream": "start", "chunk": ""}
    assert replies[-1] == {"stream": "status", "chunk": 1}
    assert "undeclared" in text(replies, "stderr")
    assert text(replies) == ""


async def test_a_compiled_program_starts_once(server: RunningServer) -> None:
    async with connected(server.url) as client:
        replies = await client.run("cpp", '#include <cstdio>\nint main() { std::puts("built"); return 3; }')
    assert [reply["stream"] for reply in replies] == ["start", "stdout", "status"]
    assert text(replies) == "built\n"
    assert replies[-1]["chunk"] == 3


async def test_characters_that_are_written_in_pieces_arrive_whole(server: RunningServer) -> None:
    code = """
import os, time
for byte in "aé€😀".encode() + b"\\xff\\xe2\\x82":
    os.write(1, bytes([byte]))
    time.sleep(0.02)
"""
    async with connected(server.url) as client:
        assert text(await client.run("python3", code)) == "aé€😀\ufffd\ufffd"


async def test_both_streams_are_told_apart(server: RunningServer) -> None:
    async with connected(server.url) as client:
        replies = await client.run("bash", "echo out; echo err >&2")
    assert (text(replies), text(replies, "stderr")) == ("out\n", "err\n")


async def test_a_program_that_goes_on_is_stopped_without_a_status(start_server: Callable[..., RunningServer]) -> None:
    with_short_time = start_server("--grounds-wall-ms", "700")
    async with connected(with_short_time.url) as client:
        replies = await client.run("python3", "print('begun', flush=True)\nwhile True: pass")
    assert replies == [
        {"stream": "start", "chunk": ""},
        {"stream": "stdout", "chunk": "begun\n"},
        {"stream": "error", "chunk": "Timeout exceeded."},
    ]


async def test_compiling_counts_as_time_of_the_run(make_place: Callable[..., Any]) -> None:
    async with make_place(grounds_wall_ms=500) as place, connected(place.url) as client:
        replies = await client.run("built", "echo compiling; sleep 600")
        assert replies[-1] == {"stream": "error", "chunk": "Timeout exceeded."}
        assert text(replies) == "compiling\n"
        place.clock.pass_by(1)
        replies = await client.run("built", "echo 'echo running; sleep 600' > built.sh")
        assert [reply["stream"] for reply in replies] == ["start", "stdout", "error"]
        assert replies[-1]["chunk"] == "Timeout exceeded."
        await place.is_idle()


async def test_memory_is_bounded(server: RunningServer) -> None:
    async with connected(server.url) as client:
        replies = await client.run("python3", "data = bytearray(200_000_000)\nprint('has it')")
    assert text(replies) == ""
    assert replies[-1]["stream"] == "status"
    assert replies[-1]["chunk"] != 0


async def test_output_without_end_ends_the_run(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--run-output-bytes", "100kB")
    async with connected(server.url) as client:
        replies = await client.run("python3", "while True: print('x' * 1000)")
    assert len(text(replies)) == 100_000
    assert replies[-1] == {"stream": "error", "chunk": "Output limit exceeded."}


@pytest.mark.parametrize("language", ["c", "cpp", "golang", "java", "node", "php", "python3", "ruby", "rust"])
async def test_the_names_of_languages_there_are_names_here(server: RunningServer, language: str) -> None:
    """Those that this host has: the others are unknown here, by whatever name."""
    async with connected(server.url) as client:
        await client.ask(language, "")
        first = await client.hear()
        if first["stream"] == "error":
            assert first["chunk"].startswith(f"no runtime matches {language!r}")
            pytest.skip(f"{language} is not installed")
        assert first == {"stream": "start", "chunk": ""}


async def test_many_clients_are_served_side_by_side(server: RunningServer) -> None:
    async def one(number: int) -> None:
        async with connected(server.url, TRANSPORTS[number % 2]) as client:
            assert text(await client.run("bash", f"echo {number}")) == f"{number}\n"

    await asyncio.gather(*(one(number) for number in range(8)))


async def test_the_longest_program_is_run(server: RunningServer) -> None:
    code = "print(1)\n#" + "é" * (CODE_CHARACTERS - 10)
    async with connected(server.url, "polling") as client:
        assert text(await client.run("python3", code)) == "1\n"
