"""Statuses of errors, the description of the API, and the completeness of its documentation."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import msgspec
import pytest

from firebox.domain.errors import FireboxError, InvalidRequest, LimitTooHigh, UnknownRuntime
from firebox.domain.model import Chunk, File, Finished
from firebox.doors.http import refusals
from firebox.doors.http.output import LARGE_BYTES, Pieces
from firebox.doors.http.status import STATUS
from firebox.doors.native import events, live, wire
from tests.support.results import result_with, stage_with


def all_errors(base: type[FireboxError] = FireboxError) -> Iterator[type[FireboxError]]:
    """Yield every class but those of other doors."""
    yield base
    for error in base.__subclasses__():
        if re.match(r"firebox\.(?!doors\.(?!http\.)\w+\.)", error.__module__):
            yield from all_errors(error)


def test_every_error_has_a_status() -> None:
    assert refusals.TransportError in set(all_errors())
    assert {error.__name__ for error in all_errors() if error not in STATUS} == set()


def test_every_code_is_documented_with_its_status(checkout: Path) -> None:
    text = (checkout / "docs/reference/errors.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (\d+)", text, re.MULTILINE))
    assert all(f"`{field.encode_name}`" in text for field in msgspec.structs.fields(wire.ErrorDetail))
    abstract = {"request", "capacity", "http"}
    assert {error.code: str(int(STATUS[error])) for error in all_errors() if error.code not in abstract}.items() <= rows.items()


def test_places_are_spelled_as_the_client_wrote_them() -> None:
    assert wire.from_error(LimitTooHigh("run.wall_ms", asked=2, allowed=1))[1].error.where == "limits.run.wall_ms"
    assert wire.from_error(InvalidRequest("x", where="compile.cpu_ms"))[1].error.where == "limits.compile.cpu_ms"
    assert wire.from_error(UnknownRuntime("x", "*"))[1].error.where == "language"
    assert msgspec.json.decode(msgspec.json.encode(wire.from_error(InvalidRequest("words"))[1])) == {
        "error": {"code": "request.invalid", "message": "words"}
    }


@pytest.mark.parametrize(("more", "fresh"), [({}, False), ({"fresh": False}, False), ({"fresh": True}, True)])
def test_a_program_may_be_started_anew(more: dict[str, bool], fresh: bool) -> None:
    body = {"language": "bash", "code": "", **more}
    assert wire.to_job(msgspec.convert(body, wire.RunRequest)).fresh is fresh
    assert wire.to_job(msgspec.convert({"type": "start", **body}, live.Start)).fresh is fresh


async def test_output_is_in_the_order_of_arrival_and_characters_stay_whole() -> None:
    chunks = (Chunk("stdout", b"a\xe2\x82"), Chunk("stderr", b"!"), Chunk("stdout", b"\xac"), Chunk("stderr", b"\xc3"))
    result = result_with(run=stage_with(chunks=chunks, wall_ms=1 / 3))
    stage = (await wire.from_result(result, Pieces(), exact=False)).run
    assert stage is not None
    assert (stage.stdout, stage.stderr, stage.output, stage.wall_ms) == ("a€", "!�", "a!€�", 0.333)


async def test_the_last_event_of_a_run_is_written_in_pieces() -> None:
    content = bytes(range(256)) * 8192
    result = result_with(artifacts=(File("large", content), File("small", b"x")))
    (written,) = [each async for each in events.EventTranslator().feed(Finished(sequence=1, result=result))]
    assert max(map(len, written.parts)) <= LARGE_BYTES
    artifacts = msgspec.json.decode(b"".join(written.parts))["result"]["artifacts"]
    assert [base64.b64decode(each["content"]) for each in artifacts] == [content, b"x"]


@pytest.fixture(scope="module")
def description(server: Any) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/schema/openapi.json", trust_env=False)
    return dict(answer.json())


def test_the_description_is_openapi_3_1_and_whole(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1.")
    schemas = description["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', msgspec.json.encode(description).decode()))
    assert references <= set(schemas)
    assert schemas["RunRequest"]["properties"]["language"]["description"]
    assert schemas["StageLimits"]["additionalProperties"] is False
    body = description["paths"]["/api/v1/runs"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("/RunRequest")
    for methods in description["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert all(answer["description"] != "Additional response" for answer in operation["responses"].values())


def test_every_route_message_and_field_is_documented(description: dict[str, Any], checkout: Path) -> None:
    text = (checkout / "docs/reference/native-api.md").read_text()
    wanted = [
        f"`{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods if "/v1/" in path
    ]
    wanted += [
        f"`{kind.__struct_config__.tag}`"
        for kind in (*get_args(live.Message), *get_args(events.AnyEvent), live.Started, live.Failed)
    ]
    for struct in (wire.RunRequest, wire.FileRequest, wire.ResultWithOutput, wire.StageWithOutput, wire.StageLimits):
        wanted += [f"`{field.encode_name}`" for field in msgspec.structs.fields(struct)]
    assert [each for each in wanted if each not in text] == []
