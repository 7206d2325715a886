"""Routes of the native API, version 1, below /api/v1. Its JSON: `wire`, `events`, `live`; its description: `native_openapi`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, post, websocket
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.params import HeaderParameter
from litestar.response import Stream

import firebox
from firebox.domain.errors import FireboxError, InvalidRequest
from firebox.doors.http.credentials import identify
from firebox.doors.http.output import Pieces
from firebox.doors.http.requests import AnyRequest, AnySocket, check_origin, read_json, read_origins, while_connected
from firebox.doors.http.routing import Router, error_handlers
from firebox.doors.http.server_sent_events import MEDIA_TYPE, STREAM_HEADERS
from firebox.doors.native import wire
from firebox.doors.native.events import event_stream, translate
from firebox.doors.native.live import refuse_live_run, serve_live_run
from firebox.service import run_metrics
from firebox.service.runs import StoredRun
from firebox.service.service import Service
from firebox.settings.settings import Settings

PREFIX = "/api/v1"

ERRORS = error_handlers(wire.from_error, wire.ErrorBody(wire.ErrorDetail("internal", "internal error; see the server log")))


def router(service: Service, settings: Settings) -> Router:
    """Create the routes of this door."""
    return Router(
        PREFIX,
        route_handlers=[create_run, read_run, cancel_run, follow_run, live_run, list_runtimes, read_health, read_metrics],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False),
            "settings": Provide(lambda: settings, sync_to_thread=False),
        },
        exception_handlers={**ERRORS, HTTPException: answer_http_error},
    )


def answer_http_error(_request: AnyRequest, error: HTTPException) -> Response[wire.ErrorBody]:
    """Return the response for an error of the router: unknown path, wrong method, malformed parameter."""
    status = HTTPStatus(error.status_code)
    message = error.detail if status is HTTPStatus.BAD_REQUEST else status.phrase
    body = wire.ErrorBody(wire.ErrorDetail(f"http.{status.name.lower()}", message))
    return Response(body, status_code=status, headers=error.headers)


@post("/runs", status_code=200)
async def create_run(
    request: AnyRequest, service: NamedDependency[Service], settings: NamedDependency[Settings]
) -> Response[Any]:
    caller = await identify(request, service)
    body = await read_json(request, wire.RunRequest, settings.max_body_bytes)
    job = wire.to_job(body)
    if _prefers_async(request.headers.get("prefer", "")):
        stored = await service.runs.submit(job, caller)
        headers = {"Location": f"{PREFIX}/runs/{stored.id}", "Preference-Applied": "respond-async"}
        return await _answer_state(stored, status=202, headers=headers)
    result = await while_connected(request, service.execute(job, caller))
    pieces = Pieces()
    return pieces.answer(msgspec.json.encode(await wire.from_result(result, pieces, exact=body.base64)))


@get("/runs/{run_id:str}")
async def read_run(
    request: AnyRequest, run_id: str, service: NamedDependency[Service], base64: bool = False
) -> Response[wire.RunState]:
    return await _answer_state(service.runs.get(run_id, await identify(request, service)), exact=base64)


@delete("/runs/{run_id:str}", status_code=200)
async def cancel_run(request: AnyRequest, run_id: str, service: NamedDependency[Service]) -> Response[wire.RunState]:
    return await _answer_state(await service.runs.cancel(run_id, await identify(request, service)))


@get("/runs/{run_id:str}/events", media_type=MEDIA_TYPE)
async def follow_run(
    request: AnyRequest,
    run_id: str,
    service: NamedDependency[Service],
    last_event_id: Annotated[str, HeaderParameter(name="Last-Event-ID")] = "",
    base64: bool = False,
) -> Response[Any]:
    after_sequence = _sequence_of(last_event_id)
    stored = service.runs.get(run_id, await identify(request, service))
    if stored.log.finished and after_sequence >= stored.log.last_sequence:
        return Response(None, status_code=204)
    events = translate(stored.log.read(split_after=after_sequence), after_sequence, exact=base64)
    return Stream(event_stream(events), media_type=MEDIA_TYPE, headers=STREAM_HEADERS)


@websocket("/runs/live")
async def live_run(socket: AnySocket, service: NamedDependency[Service], settings: NamedDependency[Settings]) -> None:
    try:
        check_origin(socket, read_origins(settings.cors_origins))
        caller = await identify(socket, service)
    except FireboxError as error:
        await refuse_live_run(socket, error)
    else:
        await serve_live_run(socket, service, caller)


@get("/runtimes")
async def list_runtimes(service: NamedDependency[Service]) -> list[wire.RuntimeEntry]:
    return [wire.from_runtime(runtime) for runtime in service.runtimes()]


@get("/health")
async def read_health(service: NamedDependency[Service]) -> Response[wire.Health]:
    statistics = service.statistics()
    health = wire.Health(
        status="stopping" if service.stopping else "ok",
        version=firebox.__version__,
        slots=statistics.slots,
        in_flight=statistics.in_flight,
        queued=statistics.queued,
        ready_sandboxes=statistics.pool.ready,
    )
    return Response(health, status_code=503 if service.stopping else 200)


@get("/metrics", media_type=run_metrics.MEDIA_TYPE)
async def read_metrics(request: AnyRequest, service: NamedDependency[Service]) -> Response[bytes]:
    await identify(request, service)
    return Response(service.metrics.text(), media_type=run_metrics.MEDIA_TYPE)


def _sequence_of(last_event_id: str) -> int:
    """Parse the Last-Event-ID header; -1 if it is empty. Raises: InvalidRequest when it is not a sequence number."""
    if not last_event_id:
        return -1
    if not last_event_id.isdecimal() or len(last_event_id) > 18:
        raise InvalidRequest("not a sequence number", where="Last-Event-ID")
    return int(last_event_id)


def _prefers_async(prefer: str) -> bool:
    """Parse the Prefer header. Source: RFC 7240, section 4.1."""
    return any(word.split(";")[0].strip().lower() == "respond-async" for word in prefer.split(","))


async def _answer_state(
    stored: StoredRun, *, exact: bool = False, status: int = 200, headers: dict[str, str] | None = None
) -> Response[Any]:
    state, pieces = stored.state, Pieces()
    result = await wire.from_result(stored.result, pieces, exact=exact) if stored.result is not None else None
    return pieces.answer(msgspec.json.encode(wire.RunState(stored.id, stored.runtime, state, result)), status, headers)
