"""The OpenAPI document: valid, complete, in agreement with responses, and usable by a client generator."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from litestar.routes import HTTPRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from firebox.engine.executor import LocalExecutor
from firebox.runtimes.registry import Registry
from firebox.server.app import create_app, describe
from firebox.service.service import Service
from firebox.settings.settings import load_settings
from firebox.storage.stores import open_stores
from tests.conftest import ROOT
from tests.support.server import RunningServer

NOT_DESCRIBED = {
    "/schema": "the page that shows the description",
    "/schema/openapi.json": "the description itself",
    "/schema/page.css": "a part of the page",
    "/schema/page.js": "a part of the page",
    "/runner/openapi.json": "the description that Runner's clients look for",
    "/socket.io": "Socket.IO, which OpenAPI cannot describe",
    "/api/v1/runs/live": "a WebSocket",
    "/api/v2/connect": "a WebSocket; without an upgrade it is a 404",
}
ALIAS = "/api/v2/piston"
"""The same as /api/v2."""
REFUSERS = {"answer_unknown_route", "answer_unknown_method", "refuse"}
"""Handlers of unknown methods and paths, which answer as their protocol does."""

PAGES = {"/api/v1": "native-api", "/api/v2": "piston", "/api/v3": "packages-api", "/": "glot-run"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): each for path, methods in document["paths"].items() for method, each in methods.items()}


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_is_whole(document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    ids = [each["operationId"] for each in operations.values()]
    assert len(ids) == len(set(ids))
    assert all(each.isidentifier() and each == each.lower() for each in ids)
    tags = {tag["name"] for tag in document["tags"]}
    for (method, _), each in operations.items():
        assert each["summary"]
        assert set(each["tags"]) <= tags
        assert each["security"] or not {"401", "403"} & set(each["responses"])
        if method in ("POST", "PUT") and "requestBody" in each and each["operationId"] != "install_package":
            examples = each["requestBody"]["content"]["application/json"]["examples"]
            for example in examples.values():
                check(document, each["requestBody"]["content"]["application/json"]["schema"], example["value"])
        for response in each["responses"].values():
            for content in response.get("content", {}).values():
                if "example" in content:
                    check(document, content["schema"], content["example"])


# Litestar announces how its next version wants dependencies and headers named.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_every_route_is_described_or_named_here(tmp_path: Path, operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    settings = load_settings({"data_dir": tmp_path}, environ={})
    registry = Registry([])
    async with open_stores(settings) as stores:
        service = Service(LocalExecutor(settings, registry), registry, settings, stores)
        routes: Any = create_app(service, settings)
    served: set[tuple[str, str]] = set()
    for each in routes._app.routes:
        path = each.path_format
        if path == ALIAS or path.startswith(f"{ALIAS}/") or path in NOT_DESCRIBED:
            continue
        assert isinstance(each, HTTPRoute), path
        for handler in each.route_handlers:
            if handler.fn.__name__ not in REFUSERS:
                served |= {(method, path) for method in handler.http_methods if method not in ("OPTIONS", "HEAD")}
    assert served == set(operations)


def test_every_described_route_is_on_its_page(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        if any(each["tags"] == ["runner"] for each in methods.values()):
            page = "runner"
        else:
            page = next(page for prefix, page in PAGES.items() if path.startswith(prefix))
        text = (ROOT / "docs" / "reference" / f"{page}.md").read_text()
        for method in methods:
            assert route_in(text, method.upper(), path), f"{method.upper()} {path} is not in docs/reference/{page}.md"


def route_in(text: str, method: str, path: str) -> bool:
    """Return whether a line of a page names a route, with or without its prefix and whatever its parameters are called."""
    wanted = re.sub(r"\{\w+\}", "{}", path.removeprefix("/api/v2"))
    lines = (re.sub(r"\{\w+\}", "{}", line) for line in text.splitlines())
    return any(f"{wanted}`" in line.replace("?", "`") and re.search(rf"\b{method}\b", line) for line in lines)


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


MISTAKES = [
    # What is asked, on which described path, and what comes of it.
    ("GET", "/api/v1/runs/{run_id}", {"run_id": "x"}, {}, 404),
    ("GET", "/api/v1/runs/{run_id}", {"run_id": "x"}, {"params": {"base64": "maybe"}}, 400),
    ("GET", "/api/v1/runs/{run_id}", {"run_id": "x"}, {"headers": {"Authorization": "Bearer wrong"}}, 401),
    ("GET", "/api/v1/runs/{run_id}", {"run_id": "x"}, {"headers": {"Host": "elsewhere.example"}}, 421),
    ("GET", "/api/v1/runs/{run_id}", {"run_id": "x"}, {"headers": {"X": "y" * 70_000}}, 431),
    ("DELETE", "/api/v1/runs/{run_id}", {"run_id": "x"}, {}, 404),
    ("GET", "/api/v1/runs/{run_id}/events", {"run_id": "x"}, {}, 404),
    ("GET", "/api/v1/runs/{run_id}/events", {"run_id": "x"}, {"headers": {"Last-Event-ID": "x"}}, 400),
    ("POST", "/api/v1/runs", {}, {"json": {"language": "none"}}, 400),
    ("POST", "/api/v1/runs", {}, {"content": "x"}, 415),
    ("POST", "/api/v1/runs", {}, {"json": {"language": "bash", "code": "#" * (5 << 20)}}, 413),
    ("GET", "/api/v1/metrics", {}, {"headers": {"Authorization": "Bearer wrong"}}, 401),
    ("POST", "/api/v2/execute", {}, {"json": {}}, 400),
    ("POST", "/api/v2/execute", {}, {"content": "x"}, 415),
    ("DELETE", "/api/v2/packages", {}, {"json": {"language": "none", "version": "1"}}, 404),
    ("GET", "/api/v3/repos/{repository}/packages", {"repository": "none"}, {}, 404),
    ("GET", "/api/v3/repos/{repository}/packages", {"repository": "all"}, {"params": {"sync": "maybe"}}, 400),
    ("GET", "/api/v3/packages/{package}/{version}", {"package": "none", "version": "1"}, {}, 404),
    ("POST", "/api/v3/packages/{package}/{version}/execute", {"package": "none", "version": "1"}, {"json": {"code": ""}}, 404),
    ("GET", "/languages/{name}", {"name": "none"}, {}, 404),
    ("POST", "/languages/{name}/{version}", {"name": "bash", "version": "latest"}, {"json": {}}, 400),
    ("GET", "/admin/users", {}, {}, 401),
    ("GET", "/shared/{snippet}", {"snippet": "1"}, {}, 404),
    ("GET", "/shared/{snippet}", {"snippet": "x"}, {}, 400),
    ("POST", "/run", {}, {"json": {"code": 1}}, 400),
]


@pytest.mark.parametrize(("method", "path", "names", "sent", "status"), MISTAKES)
def test_errors_are_sent_as_they_are_described(
    server: RunningServer,
    document: dict[str, Any],
    method: str,
    path: str,
    names: dict[str, str],
    sent: dict[str, Any],
    status: int,
) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.request(method, path.format_map(names), **sent)
    assert answer.status_code == status
    described = document["paths"][path][method.lower()]["responses"][str(status)]
    check(document, described["content"]["application/json"]["schema"], answer.json())
    assert set(described.get("headers", {})) <= {name.title() for name in answer.headers} | {"WWW-Authenticate"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/runs/x", "DELETE, GET, OPTIONS"),
        ("/api/v1/runs", "OPTIONS, POST"),
        ("/api/v2/packages", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("/api/v3/packages/python/1", "DELETE, GET, OPTIONS"),
        ("/admin/users/x", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/shared/1", "DELETE, GET, OPTIONS"),
    ],
)
def test_a_path_names_all_of_its_methods(server: RunningServer, path: str, allowed: str) -> None:
    asked = [httpx.options(server.url + path, trust_env=False)]
    if path.startswith("/api/v1"):  # the other protocols have their own answers to unknown methods
        asked.append(httpx.put(server.url + path, trust_env=False))
    assert [sorted(answer.headers["allow"].split(", ")) for answer in asked] == [allowed.split(", ")] * len(asked)


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a package generated by openapi-python-client."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = [
        sys.executable, "-W", "error", "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning",
        "--path", str(folder / "openapi.json"), "--config", str(folder / "config.yaml"),
        "--output-path", str(folder / "generated_client"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield "generated_client"
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "generated_client"]:
        del sys.modules[name]


def test_a_generated_client_has_every_operation(generated: str, operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    for each in operations.values():
        module = importlib.import_module(f"{generated}.api.{each['tags'][0].replace('-', '_')}.{each['operationId']}")
        assert callable(module.sync_detailed)


def test_a_generated_client_works(generated: str, server: RunningServer) -> None:
    models: Any = importlib.import_module(f"{generated}.models")

    def call(name: str) -> Any:
        return importlib.import_module(f"{generated}.api.{name}").sync

    with importlib.import_module(generated).Client(base_url=server.url) as client:
        request = models.RunRequest(language="bash", code="echo $1", args=["hello"])
        result = call("runs.create_run")(client=client, body=request)
        assert isinstance(result, models.ResultWithOutput)
        assert (result.verdict, result.run.stdout, result.compile_) == ("ok", "hello\n", None)

        waiting = models.RunRequest(language="bash", code="sleep 50")
        state = call("runs.create_run")(client=client, body=waiting, prefer="respond-async")
        assert isinstance(state, models.RunState)
        assert call("runs.get_run")(state.id, client=client).state in ("queued", "running")
        assert call("runs.cancel_run")(state.id, client=client).result.verdict == "cancelled"
        assert "event: finished" in call("runs.follow_run")(state.id, client=client)

        missing = call("runs.get_run")("x", client=client)
        assert isinstance(missing, models.ErrorBody)
        assert missing.error.code == "request.not_found"

        assert call("server.get_health")(client=client).status == "ok"
        job = models.PistonExecuteRequest(language="bash", version="*", files=[models.PistonFile(content="echo hello")])
        assert call("piston.piston_execute")(client=client, body=job).run.stdout == "hello\n"
        program = models.GlotRunRequest(files=[models.GlotFileEntry(name="main.sh", content="echo hello")])
        assert call("glot.glot_run")("bash", "latest", client=client, body=program).stdout == "hello\n"
        code = models.RunnerCodeRequest(code="echo hello", language="bash")
        assert call("runner.runner_run")(client=client, body=code).output == "hello\n"
        assert isinstance(call("packages.list_repositories")(client=client), list)
