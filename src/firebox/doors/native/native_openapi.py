"""OpenAPI description of the native API. See also docs/reference/native-api.md."""

from __future__ import annotations

from firebox.doors.http.openapi import (
    ASKER,
    BEARER,
    BODY,
    EVENTS,
    NO_TOKEN,
    QUERY_TOKEN,
    TEXT,
    Answer,
    Door,
    Operation,
    Parameter,
)
from firebox.doors.native import events, live, wire

RUNS, SERVER = "runs", "server"
PREFIX = "/api/v1"

EXAMPLES = {
    "python": ("A program of one file", {"language": "python", "code": "print(6 * 7)"}),
    "input": (
        "Standard input and arguments",
        {
            "language": "python",
            "code": "import sys\nprint(sys.argv[1], input())",
            "stdin": "Ada\n",
            "args": ["Hello,"],
        },
    ),
    "files": (
        "Several files",
        {
            "language": "python",
            "files": [
                {"name": "main.py", "content": "from greeting import words\nprint(words)"},
                {"name": "greeting.py", "content": "words = 'Hello'"},
            ],
        },
    ),
    "limits": (
        "Limits, and a file returned after the run",
        {
            "language": "bash",
            "code": "seq 3 > numbers.txt",
            "limits": {"run": {"wall_ms": 1000, "memory_bytes": 67108864}},
            "artifacts": ["*.txt"],
        },
    ),
}
_RUNTIME = {"language": "python", "version": "3.12.4"}
_ID = "01KBX3W7Y5B7V0M4C1ZQ9T8RDE"
_RESULT = {
    "id": _ID,
    "runtime": _RUNTIME,
    "verdict": "ok",
    "reason": "",
    "compile": None,
    "run": {
        "verdict": "ok",
        "reason": "",
        "exit_code": 0,
        "signal": None,
        "stdout_truncated": False,
        "stderr_truncated": False,
        "wall_ms": 9.2,
        "cpu_ms": 8.7,
        "memory_peak_bytes": 8663040,
        "stdout": "42\n",
        "stderr": "",
        "output": "42\n",
    },
    "timings": {"queue_ms": 0.02, "prepare_ms": 1.4, "compile_ms": 0.0, "run_ms": 9.2},
    "artifacts": [],
    "left_out": [],
    "cache": "none",
    "isolation": ["mount", "pid", "network"],
}
_QUEUED = {"id": _ID, "runtime": _RUNTIME, "state": "queued", "result": None}
_RUN_ID = Parameter("run_id", "Id of an asynchronous run.", example=_ID)
_BASE64 = Parameter(
    "base64",
    "Also return the exact bytes of output that is not UTF-8.",
    "query",
    schema={"type": "boolean", "default": False},
)


def describe() -> Door:
    """Describe the operations."""
    return Door(
        tags={
            RUNS: (
                "Running programs. Interactive runs (input, signals, terminals) go over a WebSocket at `/api/v1/runs/live`, "
                "which OpenAPI cannot describe: its messages are the schemas from `Start` to `Cancel`."
            ),
            SERVER: "Available runtimes, and the state of the server.",
        },
        failure=wire.ErrorBody,
        also=(events.AnyEvent, live.Message),
        operations=[*_runs(), *_server()],
    )


def _runs() -> list[Operation]:
    return [
        Operation(
            "post",
            f"{PREFIX}/runs",
            "create_run",
            RUNS,
            "Run a program",
            description=(
                "Responds when the program has ended. With `Prefer: respond-async` it responds at once, and the run is polled, "
                "followed and cancelled by its id. Closing the connection before the response cancels the run."
            ),
            parameters=[
                Parameter("Prefer", "`respond-async`: respond at once.", "header"),
            ],
            body=wire.RunRequest,
            examples=EXAMPLES,
            answers={
                200: Answer("The run has ended.", wire.ResultWithOutput, example=_RESULT),
                202: Answer(
                    "The run has been accepted.",
                    wire.RunState,
                    headers={"Location": "URL of the run.", "Preference-Applied": "`respond-async`"},
                    example=_QUEUED,
                ),
            },
            errors=(*BODY, *ASKER),
        ),
        Operation(
            "get",
            f"{PREFIX}/runs/{{run_id}}",
            "get_run",
            RUNS,
            "Get the state of an asynchronous run",
            parameters=[_RUN_ID, _BASE64],
            answers={200: Answer("The state, with the result once the run has ended.", wire.RunState, example=_QUEUED)},
            errors=(400, 404, *ASKER),
        ),
        Operation(
            "delete",
            f"{PREFIX}/runs/{{run_id}}",
            "cancel_run",
            RUNS,
            "Cancel an asynchronous run",
            description="Responds once the run is cleaned up. A run that has already ended is left unchanged.",
            parameters=[_RUN_ID],
            answers={200: Answer("The run has ended.", wire.RunState)},
            errors=(404, *ASKER),
        ),
        Operation(
            "get",
            f"{PREFIX}/runs/{{run_id}}/events",
            "follow_run",
            RUNS,
            "Follow an asynchronous run",
            description=(
                "Server-sent events from the first one, or from the one after `Last-Event-ID`. The stream ends after `finished`. "
                "The data of each is one of the schemas `StageStarted`, `Output`, `StageExited` and `Finished`."
            ),
            parameters=[
                _RUN_ID,
                Parameter("Last-Event-ID", "Sequence number of the last event seen.", "header"),
                _BASE64,
            ],
            answers={
                200: Answer("The events.", media={EVENTS: str}),
                204: Answer("No more events: the last one has been seen already. A browser stops reconnecting."),
            },
            errors=(400, 404, *ASKER),
            security=({}, {BEARER: []}, {QUERY_TOKEN: []}),
        ),
    ]


def _server() -> list[Operation]:
    return [
        Operation(
            "get",
            f"{PREFIX}/runtimes",
            "list_runtimes",
            SERVER,
            "List the available runtimes",
            answers={200: Answer("The runtimes.", list[wire.RuntimeEntry])},
            security=NO_TOKEN,
        ),
        Operation(
            "get",
            f"{PREFIX}/health",
            "get_health",
            SERVER,
            "Check whether the server accepts runs",
            answers={200: Answer("It does.", wire.Health), 503: Answer("The server is shutting down.", wire.Health)},
            security=NO_TOKEN,
        ),
        Operation(
            "get",
            f"{PREFIX}/metrics",
            "get_metrics",
            SERVER,
            "Metrics for Prometheus",
            answers={200: Answer("The metrics.", media={TEXT: str})},
            errors=ASKER,
        ),
    ]
