"""Requests that are wrong in every way: each is answered with a 4xx and a message, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.piston.health import health
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

JSON = {"content-type": "application/json"}
LIMIT_BYTES = 4 << 20


def job(**changes: Any) -> bytes:
    return json.dumps({"language": "bash", "version": "*", "files": [{"content": "true"}], **changes}).encode()


def file(**changes: Any) -> bytes:
    return job(files=[{"content": "true"}, {"content": "", **changes}])


MALFORMED = {
    "no JSON": b"language=bash",
    "truncated": job()[:-1],
    "two documents": job() + job(),
    "not UTF-8": job().replace(b"true", b"\xff"),
    "NaN": job().replace(b'"true"', b"NaN"),
    "a string": b'"bash"',
    "a number": b"1",
    "null": b"null",
    "deep arrays": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 500_000,
    "deep within a key": job(args=[]).replace(b'"args": []', b'"args": ' + b"[" * 500_000 + b"]" * 500_000),
    "a number of 5,000 digits": job(run_timeout=0).replace(b'"run_timeout": 0', b'"run_timeout": ' + b"9" * 5000),
}

WRONG = {
    "nothing": b"",
    "an empty object": b"{}",
    "an array": b"[]",
    "language null": job(language=None),
    "language a number": job(language=1),
    "language empty": job(language=""),
    "language of blanks": job(language=" "),
    "language with a NUL": job(language="bash\0"),
    "language with a surrogate": job(language="bash\ud800"),
    "language very long": job(language="x" * 100_000),
    "language of the shell": job(language="$(id)"),
    "version null": job(version=None),
    "version no range": job(version="latest"),
    "version of the shell": job(version="$(id)\n%s"),
    "version very long": job(version="1 || " * 50_000),
    "version with a surrogate": job(version="\udfff"),
    "files null": job(files=None),
    "files an object": job(files={}),
    "files empty": job(files=[]),
    "a file null": job(files=[None]),
    "a file a string": job(files=["true"]),
    "a file an array": job(files=[[]]),
    "content missing": job(files=[{"name": "a"}]),
    "content a number": job(files=[{"content": 1}]),
    "content with a surrogate": job(files=[{"content": "\ud800"}]),
    "too many files": job(files=[{"content": ""}] * 10_000),
    "name a number": file(name=1),
    "name an array": file(name=["a"]),
    "name outside": file(name="../x"),
    "name outside in the middle": file(name="a/../../x"),
    "name absolute": file(name="/etc/x"),
    "name of another system": file(name="C:\\x"),
    "name a dot": file(name="."),
    "name two dots": file(name=".."),
    "name a folder": file(name="a/"),
    "name a folder by a dot": file(name="a/."),
    "name with a NUL": file(name="a\0b"),
    "name with a surrogate": file(name="a\ud800"),
    "name very long": file(name="x" * 5000),
    "name with a long component": file(name="x" * 256),
    "name very deep": file(name="/".join("x" * 100)),
    "a name that is a file and a folder": job(files=[{"content": "", "name": "a"}, {"content": "", "name": "a/b"}]),
    "no base64": file(name="a", content="a*b=", encoding="base64"),
    "base64 of a wrong length": file(name="a", content="aaaaa", encoding="base64"),
    "base64 that is no ASCII": file(name="a", content="é", encoding="base64"),
    "no hex": file(name="a", content="0g", encoding="hex"),
    "hex of a wrong length": file(name="a", content="000", encoding="hex"),
    "stdin a number": job(stdin=1),
    "stdin an object": job(stdin={}),
    "stdin with a surrogate": job(stdin="\ud800"),
    "args a string": job(args="a"),
    "args of numbers": job(args=["a", 1]),
    "an argument null": job(args=[None]),
    "an argument with a NUL": job(args=["a\0b"]),
    "an argument with a surrogate": job(args=["\ud800"]),
    "an argument too large": job(args=["x" * 200_000]),
    "arguments too large": job(args=["x" * 1000] * 2000),
    "too many arguments": job(args=["x"] * 200_000),
    "a limit of text": job(run_timeout="3000"),
    "a limit without end": job(run_timeout=0).replace(b'"run_timeout": 0', b'"run_timeout": 1e400'),
    "a limit below 0": job(run_timeout=-1),
    "a limit above the maximum": job(run_memory_limit=1e308),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_malformed_json_is_400(piston: httpx.Client, body: bytes) -> None:
    answer = piston.post("/execute", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"message"}
    assert len(answer.content) < 2000


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_400(piston: httpx.Client, body: bytes) -> None:
    answer = piston.post("/execute", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"message"}
    assert len(answer.content) < 2000


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", job(version=3), job(language=None), job(language="\ud800")])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_wrong_package_request_is_400(piston: httpx.Client, method: str, body: bytes) -> None:
    answer = piston.request(method, "/packages", content=body, headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"message"}


@pytest.mark.parametrize("kind", ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "x application/json"])
@pytest.mark.parametrize("path", ["/execute", "/packages", "/nothing"])
def test_every_other_content_type_is_415(piston: httpx.Client, path: str, kind: str) -> None:
    answer = piston.post(path, content=job(), headers={"content-type": kind} if kind else {})
    assert (answer.status_code, answer.json()) == (415, {"message": "requests must be of type application/json"})


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/json5"])
def test_every_content_type_that_begins_like_json_is_taken(piston: httpx.Client, kind: str) -> None:
    assert piston.post("/execute", content=job(), headers={"content-type": kind}).status_code == 200


def test_a_compressed_body_is_415(piston: httpx.Client) -> None:
    answer = piston.post("/execute", content=gzip.compress(job()), headers={**JSON, "content-encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (415, {"message": "the content encoding is 'gzip'"})


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
def test_a_body_that_is_too_large_is_413(piston: httpx.Client, announced: bool) -> None:
    def parts() -> Iterator[bytes]:
        yield from (b"x" * LIMIT_BYTES, b"x")

    content = b"x" * (LIMIT_BYTES + 1) if announced else parts()
    answer = piston.post("/execute", content=content, headers=JSON)
    assert answer.status_code == 413
    assert answer.json() == {"message": f"the body is larger than {LIMIT_BYTES} bytes"}


def test_a_body_of_100_megabytes_is_413(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--slots", "1")
    body = b'{"language": "' + b"x" * (100 << 20)
    answer = httpx.post(f"{server.url}/api/v2/execute", content=body, headers=JSON, timeout=60, trust_env=False)
    assert answer.status_code == 413
    assert answer.json() == {"message": f"the body is larger than {4 << 20} bytes"}


def busy(server: RunningServer) -> socket.socket:
    """Occupy the only slot of a server for as long as the connection is open."""
    body = job(files=[{"content": "sleep 50"}], run_timeout=60_000)
    connection = server.connect()
    headers = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    head = f"POST /api/v2/execute HTTP/1.1\r\n{headers}\r\n\r\n"
    connection.sendall(head.encode() + body)
    wait_until(lambda: health(server)["in_flight"] == 1)
    return connection


def test_a_full_queue_is_429_and_says_when_to_come_again(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--slots", "1", "--queue-length", "0")
    with busy(server):
        answer = httpx.post(f"{server.url}/api/v2/execute", content=job(), headers=JSON, timeout=60, trust_env=False)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json() == {"message": "all 1 slots are busy and 0 jobs wait"}
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_a_server_that_stops_is_503_and_says_when_to_come_again(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--slots", "1")
    with busy(server):
        server.process.terminate()
        wait_until(lambda: health(server)["status"] == "stopping")
        answer = httpx.post(f"{server.url}/api/v2/execute", content=job(), headers=JSON, timeout=60, trust_env=False)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json().keys() == {"message"}
    assert server.process.wait(timeout=60) == 0


def test_a_client_that_goes_away_cancels_its_job(start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--slots", "1")
    busy(server).close()
    wait_until(lambda: health(server)["in_flight"] == 0)


def test_requests_at_once_do_not_mix(piston: httpx.Client) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answer = piston.post("/execute", content=job(files=[{"content": f"echo {number}"}]), headers=JSON)
        answers[number] = answer.json()["run"]["stdout"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(8)}


def test_nothing_of_that_was_a_bug(server: RunningServer, piston: httpx.Client) -> None:
    for body in (*MALFORMED.values(), *WRONG.values()):
        piston.post("/execute", content=body, headers=JSON)
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "bug" not in log
    assert health(server)["in_flight"] == 0
