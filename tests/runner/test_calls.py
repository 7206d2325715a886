"""The four calls over gRPC, with a generated client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from firebox.doors.runner.proto.runner_pb2 import CodeRequest, CodeResponse, DeleteCodeRequest, IdRequest
from tests.runner.people import add_user
from tests.runner.stubs.runner_pb2_grpc import RunnerStub
from tests.runner.waiting import until_in_flight
from tests.support.server import RunningServer, data_folder
from tests.support.toolchains import prepare_go

Start = Callable[..., RunningServer]
SLEEP = CodeRequest(code="sleep 50", language="bash")


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """Await a call that must fail. Return its status and message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.slow
async def test_go_runs_by_default(runner: RunnerStub) -> None:
    await asyncio.to_thread(prepare_go, data_folder())
    code = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("hello") }\n'
    assert await runner.RunCode(CodeRequest(code=code)) == CodeResponse(code=code, output="hello\n", error="")


@pytest.mark.slow
async def test_a_panicking_go_program_ends_with_go_runs_message(runner: RunnerStub) -> None:
    await asyncio.to_thread(prepare_go, data_folder())
    answer = await runner.RunCode(CodeRequest(code='package main\n\nfunc main() { print("a "); panic("b") }\n'))
    assert answer.error.startswith("a panic: b\n\ngoroutine 1 [running]:\n")
    assert answer.error.endswith("\nexit status 2\n")


async def test_of_go_the_first_syntax_error_is_the_error(runner: RunnerStub) -> None:
    await asyncio.to_thread(prepare_go, data_folder())
    answer = await runner.RunCode(CodeRequest(code="package main\n\nfunc main() { x := }\n\nfunc }\n"))
    assert answer.output == ""
    assert answer.error == "syntax error: unexpected }, expected expression"


async def test_no_code_is_a_program_that_fails(runner: RunnerStub) -> None:
    await asyncio.to_thread(prepare_go, data_folder())
    answer = await runner.RunCode(CodeRequest())
    assert answer.error.startswith("syntax error: ") or "expected 'package'" in answer.error


@pytest.mark.parametrize("language", ["python", "py", "python@3", "python@*"])
async def test_another_language_may_be_named(runner: RunnerStub, language: str) -> None:
    answer = await runner.RunCode(CodeRequest(code="print(6 * 7)", language=language))
    assert (answer.output, answer.error) == ("42\n", "")


async def test_without_a_syntax_error_all_of_stderr_is_the_error(runner: RunnerStub) -> None:
    answer = await runner.RunCode(CodeRequest(code="echo out; echo one >&2; echo two >&2", language="bash"))
    assert (answer.output, answer.error) == ("out\n", "one\ntwo\n")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("echo out; exit 3", "exit code 3"),
        ("echo out; kill -TERM $$", "died on SIGTERM"),
    ],
)
async def test_a_program_that_fails_without_a_word_has_an_error_too(runner: RunnerStub, code: str, words: str) -> None:
    answer = await runner.RunCode(CodeRequest(code=code, language="bash"))
    assert (answer.output, answer.error) == ("out\n", words)


async def test_a_program_is_ended_after_the_time_of_the_settings(tmp_path: Path, start_server: Start) -> None:
    url = f"sqlite:///{tmp_path / 'runner.db'}"
    server = start_server("--grpc-port", "0", "--runner-timeout-ms", "300", "--database-url", url)
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
        answer = await RunnerStub(channel).RunCode(CodeRequest(code="echo out; sleep 50", language="bash"))
    assert answer.output == "out\n"
    assert answer.error.startswith("wall time limit: ")


async def test_the_time_never_exceeds_what_the_operator_allows(tmp_path: Path, start_server: Start) -> None:
    url = f"sqlite:///{tmp_path / 'runner.db'}"
    server = start_server("--grpc-port", "0", "--max-run-wall-ms", "300", "--database-url", url)
    async with grpc.aio.insecure_channel(server.ready["grpc"]) as channel:
        answer = await RunnerStub(channel).RunCode(CodeRequest(code="sleep 50", language="bash"))
    assert "300 ms" in answer.error


async def test_an_unknown_language_is_refused(runner: RunnerStub) -> None:
    status, words = await refusal(runner.RunCode(CodeRequest(code="x", language="klingon")))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert "klingon" in words


async def test_numbers_ascend(runner: RunnerStub) -> None:
    request = CodeRequest(code="echo kept", language="bash")
    numbers = [(await runner.ShareCode(request)).id for _ in range(3)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0


async def test_what_is_shared_can_be_fetched_again_and_again(runner: RunnerStub) -> None:
    code = "echo 'grüße 🦀'; printf '\\0end'"
    shared = await runner.ShareCode(CodeRequest(code=code, language="bash"))
    for _ in range(2):
        answer = await runner.GetCodeByID(IdRequest(id=shared.id))
        assert answer == CodeResponse(code=code, output="grüße 🦀\n\ufffdend", error="")


async def test_failed_code_is_not_stored(runner: RunnerStub) -> None:
    before = (await runner.ShareCode(CodeRequest(code="true", language="bash"))).id
    everything = "one\nsyntax error: two\nthree\n"
    for code, words in (("echo wrong >&2", "wrong\n"), ("exit 3", "exit code 3"), (f"printf '{everything}' >&2", everything)):
        assert await refusal(runner.ShareCode(CodeRequest(code=code, language="bash"))) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            f"failed to share code: {words}",
        )
    assert (await runner.ShareCode(CodeRequest(code="true", language="bash"))).id == before + 1


async def test_long_errors_arrive_shortened(runner: RunnerStub) -> None:
    status, words = await refusal(runner.ShareCode(CodeRequest(code="raise SystemExit('é' * 100_000)", language="python")))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert words.startswith("failed to share code: éé")
    assert words.endswith("é...")


async def test_code_that_a_database_cannot_keep_is_refused(runner: RunnerStub) -> None:
    status, words = await refusal(runner.ShareCode(CodeRequest(code="echo \0", language="bash")))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert words == "failed to share code: code: a NUL character cannot be stored"


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**40, 2**63 - 1, -(2**63)])
async def test_what_is_not_there_is_not_found(runner: RunnerStub, number: int) -> None:
    refused = await refusal(runner.GetCodeByID(IdRequest(id=number)))
    assert refused == (grpc.StatusCode.NOT_FOUND, f"failed to get code by id: no such snippet: '{number}'")


async def test_an_admin_deletes_and_others_do_not(runner: RunnerStub, database_url: str) -> None:
    admin = await add_user(database_url, "ada", "token-ada", "admin")
    user = await add_user(database_url, "bob", "token-bob", "user")
    shared = (await runner.ShareCode(CodeRequest(code="echo kept", language="bash"))).id
    assert (await runner.GetCodeByID(IdRequest(id=shared))).output == "kept\n"
    for user_id in (0, -1, user, 2**40, 2**63 - 1):
        assert await refusal(runner.DeleteCode(DeleteCodeRequest(id=shared, user_id=user_id))) == (
            grpc.StatusCode.CANCELLED,
            "forbidden",
        )
    assert (await runner.GetCodeByID(IdRequest(id=shared))).output == "kept\n"
    assert (await runner.DeleteCode(DeleteCodeRequest(id=shared, user_id=admin))).success
    for call in (runner.GetCodeByID(IdRequest(id=shared)), runner.DeleteCode(DeleteCodeRequest(id=shared, user_id=admin))):
        status, _ = await refusal(call)
        assert status is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_cancels_ends_its_program(runner: RunnerStub, server: RunningServer) -> None:
    call = runner.RunCode(SLEEP)
    waiting = asyncio.ensure_future(call.wait_for_connection())
    await until_in_flight(server, 1)
    call.cancel()
    await until_in_flight(server, 0)
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_disconnected_client_ends_its_program(server: RunningServer) -> None:
    channel = grpc.aio.insecure_channel(server.ready["grpc"])
    call = asyncio.ensure_future(RunnerStub(channel).RunCode(SLEEP).wait_for_connection())
    await until_in_flight(server, 1)
    await channel.close()
    await until_in_flight(server, 0)
    await asyncio.gather(call, return_exceptions=True)


async def test_a_deadline_ends_the_program(runner: RunnerStub, server: RunningServer) -> None:
    status, _ = await refusal(runner.RunCode(SLEEP, timeout=0.5))
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_in_flight(server, 0)


async def test_a_client_gone_in_the_middle_of_a_share_leaves_nothing(runner: RunnerStub, server: RunningServer) -> None:
    before = (await runner.ShareCode(CodeRequest(code="true", language="bash"))).id
    status, _ = await refusal(runner.ShareCode(CodeRequest(code="sleep 2; echo kept", language="bash"), timeout=0.5))
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_in_flight(server, 0)
    assert (await runner.ShareCode(CodeRequest(code="true", language="bash"))).id == before + 1


async def test_many_calls_on_one_connection(runner: RunnerStub) -> None:
    calls = [runner.RunCode(CodeRequest(code=f"echo {number}", language="bash")) for number in range(20)]
    assert [(await call).output for call in calls] == [f"{number}\n" for number in range(20)]
