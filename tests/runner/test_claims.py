"""`user_id` in a request proves nothing: an authenticated client may only send its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import httpx
import pytest

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, DeleteCodeRequest, IdRequest
from tests.runner.people import add_user
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.support.server import RunningServer

ADA, BOB, OPERATOR = "token-of-ada-the-admin", "token-of-bob-the-user", "token-of-the-operator"

Start = Callable[..., RunningServer]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runner.db'}"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


@pytest.mark.parametrize("login", [True, False], ids=["login required", "login optional"])
async def test_a_user_cannot_delete_in_the_name_of_an_admin(start_server: Start, url: str, login: bool) -> None:
    server = start_server(
        "--grpc-port", "0", "--database-url", url, "--admin-token", OPERATOR, *(["--require-login"] if login else [])
    )
    ada, bob = await add_user(url, "ada", ADA, "admin"), await add_user(url, "bob", BOB, "user")
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
        runner = RunnerStub(channel)

        def call(shared: int, user_id: int, token: str) -> Awaitable[object]:
            return runner.DeleteCode(DeleteCodeRequest(id=shared, user_id=user_id), metadata=tuple(bearer(token).items()))

        request, metadata = CodeRequest(code="echo kept", language="bash"), tuple(bearer(BOB).items())
        shared = [(await runner.ShareCode(request, metadata=metadata)).id for _ in range(4)]
        for user_id in (ada, bob, 0):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(shared[0], user_id, BOB)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.CANCELLED, "forbidden")
            with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as gateway:
                answer = gateway.delete(f"/shared/{shared[0]}", params={"user_id": user_id}, headers=bearer(BOB))
            assert (answer.status_code, answer.json()["message"]) == (499, "forbidden")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(shared[0], ada, "token-of-nobody")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await runner.GetCodeByID(IdRequest(id=shared[0]), metadata=metadata)).output == "kept\n"
        await call(shared[1], ada, ADA)
        await call(shared[2], ada, OPERATOR)
        # In the name of a user without permission: the operator's own rights do not count.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(shared[3], bob, OPERATOR)
        assert caught.value.code() is grpc.StatusCode.CANCELLED


async def test_required_login_applies_to_every_call(start_server: Start, url: str) -> None:
    server = start_server("--grpc-port", "0", "--database-url", url, "--require-login")
    ada = await add_user(url, "ada", ADA, "admin")
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
        runner = RunnerStub(channel)
        for call in (
            runner.RunCode(CodeRequest(code="true", language="bash")),
            runner.ShareCode(CodeRequest(code="true", language="bash")),
            runner.GetCodeByID(IdRequest(id=1)),
            runner.DeleteCode(DeleteCodeRequest(id=1, user_id=ada)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as gateway:
        body = {"code": "true", "language": "bash"}
        for answer in (
            gateway.post("/run", json=body),
            gateway.post("/share", json=body),
            gateway.get("/shared/1"),
            gateway.delete("/shared/1", params={"user_id": ada}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (401, 16)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert gateway.post("/run", json=body, headers=bearer(ADA)).json()["error"] == ""
