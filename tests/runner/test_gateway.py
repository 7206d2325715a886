"""The JSON gateway against golden files, and what JSON cannot show. "<text>" stands for any text."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, CodeResponse
from tests.conftest import require_tool
from tests.runner.people import add_user
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.runner.waiting import until_in_flight
from tests.support.server import RunningServer

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_answer_is_as_in_the_golden_file(gateway: httpx.Client, path: Path) -> None:
    golden = json.loads(path.read_text(encoding="utf-8"))
    for tool in golden.get("tools", []):
        require_tool(tool)
    asked, expected = golden["request"], golden["answer"]
    arguments: dict[str, Any] = {"json": asked["json"]} if "json" in asked else {"content": asked.get("text")}
    answer = gateway.request(asked["method"], asked["path"], **arguments)
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    if expected["json"].get("message") == "<text>":
        assert found["message"]
        found["message"] = "<text>"
    assert (answer.status_code, found) == (expected["status"], expected["json"])


async def test_a_snippet_lives_and_dies(gateway: httpx.Client, runner: RunnerStub, database_url: str) -> None:
    admin = await add_user(database_url, "gateway-admin", "token-gateway-admin", "admin")
    shared = gateway.post("/share", json={"code": "echo kept", "language": "bash"})
    number = shared.json()["id"]
    assert shared.json() == {"id": str(int(number))}
    later = await runner.ShareCode(CodeRequest(code="echo later", language="bash"))
    assert later.id > int(number)
    assert gateway.get(f"/shared/{later.id}").json() == {"code": "echo later", "output": "later\n", "error": ""}
    assert gateway.delete(f"/shared/{number}", params={"user_id": admin}).json() == {"success": True}
    for answer in (gateway.get(f"/shared/{number}"), gateway.delete(f"/shared/{number}", params={"user_id": admin})):
        assert (answer.status_code, answer.json()["code"]) == (404, 5)


async def test_grpc_and_gateway_return_the_same(gateway: httpx.Client, runner: RunnerStub) -> None:
    for code in ("echo out; echo err >&2; exit 1", "printf 'a\\xffb'", "printf '\\0'", "echo 'grüße 🦀'", ""):
        answer = await runner.RunCode(CodeRequest(code=code, language="bash"))
        assert CodeResponse(**gateway.post("/run", json={"code": code, "language": "bash"}).json()) == answer


def test_a_body_that_is_too_large_is_413(gateway: httpx.Client) -> None:
    answer = gateway.post("/run", json={"code": "#" * (1 << 20), "language": "bash"})
    assert (answer.status_code, answer.json()["code"]) == (413, 8)


def test_json_of_any_depth_is_an_error_and_no_crash(gateway: httpx.Client) -> None:
    answer = gateway.post("/run", content=b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}")
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


def test_a_page_of_another_site_cannot_make_the_server_run_code(gateway: httpx.Client) -> None:
    code = {"code": "true", "language": "bash"}
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}):
        origin = {"origin": "http://elsewhere.example", **headers}
        for path in ("/run", "/share"):
            answer = gateway.post(path, content=json.dumps(code), headers=origin)
            assert (answer.status_code, answer.json()["code"]) == (403, 7)
    own = gateway.post("/run", content=json.dumps(code), headers={"origin": str(gateway.base_url).rstrip("/")})
    assert own.status_code == 200


async def test_a_disconnected_client_ends_its_program(server: RunningServer) -> None:
    body = json.dumps({"code": "sleep 50", "language": "bash"}).encode()
    head = f"POST /run HTTP/1.1\r\nHost: {server.address[0]}:{server.address[1]}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(head.encode() + body)
        await until_in_flight(server, 1)
    await until_in_flight(server, 0)


def test_the_description_has_the_four_routes_with_their_messages(gateway: httpx.Client) -> None:
    document = gateway.get("/runner/openapi.json").json()
    assert document["openapi"].startswith("3.")
    operations = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert operations == {("/run", "post"), ("/share", "post"), ("/shared/{id}", "get"), ("/shared/{id}", "delete")}
    schemas = document["components"]["schemas"]
    assert schemas["ShareResponse"]["properties"] == {"id": {"type": "string", "format": "int64"}}
    assert set(schemas["CodeRequest"]["properties"]) == {"code", "language"}
    text = json.dumps(document)
    for name in schemas:
        assert f"#/components/schemas/{name}" in text or name in ("IdRequest", "DeleteCodeRequest")


def test_metrics_at_the_usual_path(gateway: httpx.Client) -> None:
    gateway.post("/run", json={"code": "true", "language": "bash"})
    answer = gateway.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'firebox_runs_total{language="bash",verdict="ok"}' in answer.text


def test_metrics_port_serves_nothing_else(start_server: Any, tmp_path: Path) -> None:
    server: RunningServer = start_server("--metrics-port", "0", "--database-url", f"sqlite:///{tmp_path / 'runner.db'}")
    url = server.ready["metrics"]
    assert not url.startswith(server.url)
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert "firebox_slots" in client.get(url).text
        assert client.get(url.removesuffix("/metrics") + "/api/v1/health").status_code == 404
        assert client.post(url.removesuffix("/metrics") + "/run", json={}).status_code == 404
    assert server.stop() == 0
