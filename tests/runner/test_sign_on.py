"""Deletion when a sign-on service decides who is an admin: nothing is deleted without its consent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, DeleteCodeRequest, IdRequest
from tests.runner.people import add_user
from tests.runner.sign_on import SignOn
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.support.guarded import free_port
from tests.support.server import RunningServer, running_server

ADMIN = 2**40
"""No user of ours has such a number."""
TRIES = 4


@dataclass(frozen=True)
class Asking:
    """A server that uses the service at `address`."""

    server: RunningServer
    address: str
    database_url: str


def asking(folder: Path, *flags: str) -> Iterator[Asking]:
    """Start a server; the service is started by each test."""
    address, url = f"127.0.0.1:{free_port(folder)}", f"sqlite:///{folder / 'runner.db'}"
    with running_server("--grpc-port", "0", "--database-url", url, "--sso-address", address, *flags) as server:
        yield Asking(server, address, url)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A server with the default timeout for the service."""
    yield from asking(tmp_path_factory.mktemp("patient"))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """A server with a timeout of a fifth of a second."""
    yield from asking(tmp_path_factory.mktemp("hasty"), "--sso-timeout-ms", "200")


@pytest.fixture
async def runner(patient: Asking) -> AsyncIterator[RunnerStub]:
    """A client of the patient server."""
    async with grpc.aio.insecure_channel(patient.server.ready["grpc"]) as channel:
        yield RunnerStub(channel)


async def share(runner: RunnerStub) -> int:
    """Share something. Return its id."""
    return (await runner.ShareCode(CodeRequest(code="echo kept", language="bash"))).id


async def refusal(runner: RunnerStub, request: DeleteCodeRequest) -> tuple[grpc.StatusCode, str]:
    """Try to delete in vain, check that the snippet still exists, and return status and message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await runner.DeleteCode(request)
    assert (await runner.GetCodeByID(IdRequest(id=request.id))).output == "kept\n"
    return caught.value.code(), caught.value.details() or ""


async def test_only_admins_of_the_service_delete(patient: Asking, runner: RunnerStub) -> None:
    sign_on, shared = SignOn(admins={ADMIN}), await share(runner)
    # An admin of ours is none of theirs.
    own = await add_user(patient.database_url, "ada", "token", "admin")
    async with sign_on.serve(patient.address):
        for user_id in (own, 0, ADMIN + 1):
            request = DeleteCodeRequest(id=shared, user_id=user_id)
            assert await refusal(runner, request) == (grpc.StatusCode.CANCELLED, "forbidden")
        async with httpx.AsyncClient(base_url=patient.server.url, trust_env=False, timeout=60) as gateway:
            answer = await gateway.delete(f"/shared/{shared}", params={"user_id": own})
            assert answer.json() == {"code": 1, "message": "forbidden", "details": []}
            answer = await gateway.delete(f"/shared/{shared}", params={"user_id": ADMIN})
            assert answer.json() == {"success": True}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await runner.GetCodeByID(IdRequest(id=shared))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert sign_on.asked == [own, 0, ADMIN + 1, own, ADMIN]


@pytest.mark.parametrize(
    "failures",
    [
        [grpc.StatusCode.ABORTED],
        [grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED],
    ],
    ids=["once", "as often as it may"],
)
async def test_transient_failures_of_the_service_are_retried(
    patient: Asking, runner: RunnerStub, failures: list[grpc.StatusCode]
) -> None:
    sign_on = SignOn(admins={ADMIN}, failures=failures.copy())
    async with sign_on.serve(patient.address):
        assert (await runner.DeleteCode(DeleteCodeRequest(id=await share(runner), user_id=ADMIN))).success
    assert len(sign_on.asked) == 1 + len(failures)


@pytest.mark.parametrize(
    ("failure", "asked"),
    [
        (grpc.StatusCode.ABORTED, TRIES),
        (grpc.StatusCode.NOT_FOUND, TRIES),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TRIES),
        (grpc.StatusCode.UNAVAILABLE, 1),
        (grpc.StatusCode.INTERNAL, 1),
        (grpc.StatusCode.PERMISSION_DENIED, 1),
        (grpc.StatusCode.CANCELLED, 1),
    ],
)
async def test_a_service_that_fails_closes_the_door(
    patient: Asking, runner: RunnerStub, failure: grpc.StatusCode, asked: int
) -> None:
    sign_on = SignOn(admins={ADMIN}, failures=[failure] * 100)
    async with sign_on.serve(patient.address):
        status, words = await refusal(runner, DeleteCodeRequest(id=await share(runner), user_id=ADMIN))
    assert status is grpc.StatusCode.UNAVAILABLE
    assert words == f"the sign-on service does not answer: {failure.name}"
    assert len(sign_on.asked) == asked


async def test_a_service_that_is_slow_closes_the_door(hasty: Asking) -> None:
    sign_on = SignOn(admins={ADMIN}, slow=True)
    async with sign_on.serve(hasty.address), grpc.aio.insecure_channel(hasty.server.ready["grpc"]) as channel:
        runner = RunnerStub(channel)
        status, words = await refusal(runner, DeleteCodeRequest(id=await share(runner), user_id=ADMIN))
    assert (status, words) == (grpc.StatusCode.UNAVAILABLE, "the sign-on service does not answer: DEADLINE_EXCEEDED")
    assert len(sign_on.asked) == sign_on.given_up == TRIES


async def test_a_client_that_does_not_wait_for_a_slow_service_deletes_nothing(patient: Asking, runner: RunnerStub) -> None:
    sign_on, shared = SignOn(admins={ADMIN}, slow=True), await share(runner)
    async with sign_on.serve(patient.address):
        call = runner.DeleteCode(DeleteCodeRequest(id=shared, user_id=ADMIN))
        waiting = asyncio.ensure_future(call.wait_for_connection())
        await sign_on.until_asked()
        call.cancel()
        # The request is cancelled as well: nothing waits for its answer.
        await sign_on.until_given_up()
        await asyncio.gather(waiting, return_exceptions=True)
    assert (await runner.GetCodeByID(IdRequest(id=shared))).output == "kept\n"


async def test_a_service_that_is_gone_closes_the_door_until_it_is_back(patient: Asking, runner: RunnerStub) -> None:
    request = DeleteCodeRequest(id=await share(runner), user_id=ADMIN)
    for _ in range(3):
        assert (await refusal(runner, request))[0] is grpc.StatusCode.UNAVAILABLE
    async with SignOn(admins={ADMIN}).serve(patient.address):
        assert (await runner.DeleteCode(request)).success


async def test_the_service_is_used_without_our_grpc_door_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runner.db'}"
    async with SignOn(admins={ADMIN}).serve() as address:
        context = running_server("--database-url", url, "--sso-address", address)
        server = await asyncio.to_thread(context.__enter__)
        try:
            async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as gateway:
                shared = (await gateway.post("/share", json={"code": "true", "language": "bash"})).json()["id"]
                answer = await gateway.delete(f"/shared/{shared}", params={"user_id": ADMIN})
                assert answer.json() == {"success": True}
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
