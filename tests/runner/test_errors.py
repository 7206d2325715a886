"""Every error has a gRPC status, and every gRPC status an HTTP one."""

from __future__ import annotations

from urllib.parse import quote

import grpc
import pytest

import firebox.doors.runner.use_cases
from firebox.domain import errors
from firebox.doors.http import refusals
from firebox.doors.runner import wire
from firebox.doors.runner.wire import MESSAGE_BYTES, STATUS, Status, cut
from tests.support.errors import all_errors, make_error

LOADED = (refusals, firebox.doors.runner.use_cases)
"""Errors are known once the modules that define them are."""

FAMILY = all_errors()


@pytest.mark.parametrize("class_", FAMILY, ids=[class_.__name__ for class_ in FAMILY])
def test_every_error_has_a_status(class_: type[errors.FireboxError]) -> None:
    error = make_error(class_)
    status, message = wire.from_error(error)
    assert status not in (Status.OK, Status.UNKNOWN)
    assert message
    request_is_at_fault = wire.http_status(error) < 500
    assert request_is_at_fault == issubclass(
        class_, errors.RequestError | errors.QueueFull | errors.BodiesFull | errors.RateLimited
    )


@pytest.mark.parametrize("class_", [class_ for class_ in FAMILY if class_.__module__ in (errors.__name__, refusals.__name__)])
def test_every_error_is_in_the_table_itself(class_: type[errors.FireboxError]) -> None:
    assert class_ in STATUS


def test_statuses_are_those_of_grpc() -> None:
    assert {status.name: status.value for status in Status} == {status.name: status.value[0] for status in grpc.StatusCode}
    assert all(status.http in range(200, 600) for status in Status)


@pytest.mark.parametrize(
    "text", ["", "plain", "x" * 5000, "é" * 5000, "%" * 5000, "🦀" * 5000, "\0" * 5000, "x" * 4000 + "🦀" * 50]
)
def test_messages_fit_into_a_status(text: str) -> None:
    short = cut(text)
    assert len(quote(short, safe=wire._UNQUOTED)) <= MESSAGE_BYTES
    assert short == text or (short.endswith("...") and text.startswith(short[:-3]) and len(short) > 300)


@pytest.mark.parametrize("text", ["1", "-1", "+7", "9223372036854775807", "-9223372036854775808", "007"])
def test_whole_numbers_are_read(text: str) -> None:
    assert wire.read_int64(text, where="id") == int(text)


@pytest.mark.parametrize(
    "text", ["", " 1", "1.0", "1e3", "0x10", "1_000", "٣", "9223372036854775808", "-9223372036854775809", "1" * 5000, "NaN"]
)
def test_anything_else_is_no_number(text: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        wire.read_int64(text, where="id")
