"""The OpenAPI description at /schema, and the page that shows it: our own, since nothing may be loaded from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, Operation, Reference, RequestBody
from litestar.serialization import encode_json

import firebox
from firebox.doors.native import events, live, wire

_REFERENCE = "#/components/schemas/{name}"
_DESCRIPTION = (
    "Runs programs in sandboxes. Interactive runs (input, signals, terminals) go over a WebSocket at `/api/v1/runs/live`, "
    "which OpenAPI cannot describe: see docs/native-api.md."
)


@dataclass
class RunOperation(Operation):
    """An operation that takes a `RunRequest`, which the route reads itself."""

    def __post_init__(self) -> None:
        schema = Reference(ref=_REFERENCE.format(name=wire.RunRequest.__name__))
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=schema)}, required=True)


class ReferencePage(OpenAPIRenderPlugin):
    """Show the description as one page without any outside part."""

    def __init__(self) -> None:
        super().__init__(path="/", favicon="", style="")
        self._page = files("firebox.doors.native").joinpath("reference.html").read_bytes()

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002 - the page fetches it
        return self._page


class Description(JsonRenderPlugin):
    """Serve the description, with the types that routes read and stream by themselves."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        schemas = {**openapi_schema["components"]["schemas"], **_own_schemas()}
        return encode_json({**openapi_schema, "components": {"schemas": schemas}})


@cache
def _own_schemas() -> dict[str, Any]:
    _, schemas = msgspec.json.schema_components((wire.RunRequest, events.AnyEvent, live.Message), ref_template=_REFERENCE)
    return schemas


def describe() -> OpenAPIConfig:
    """Describe every HTTP route of the application, and serve the description as JSON and as a page."""
    return OpenAPIConfig(
        title="Firebox",
        version=firebox.__version__,
        description=_DESCRIPTION,
        render_plugins=[ReferencePage(), Description()],
        use_handler_docstrings=True,
    )
