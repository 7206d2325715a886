"""OpenAPI description of the native API. See also docs/reference/native-api.md."""

from __future__ import annotations

from firebox.doors.http.openapi import EVENT_SOURCE_TOKEN, EVENTS, NO_TOKEN, TEXT, Answer, Body, Door, Group, Operation, Parameter
from firebox.doors.native import events, live, wire
from firebox.doors.native.routes import PREFIX

RUNS, SERVER = "runs", "server"

_INPUT = {"language": "python", "code": "import sys\nprint(sys.argv[1], input())", "stdin": "Ada\n", "args": ["Hello,"]}
_FILES = {
    "language": "python",
    "files": [
        {"name": "main.py", "content": "from greeting import words\nprint(words)"},
        {"name": "greeting.py", "content": "words = 'Hello'"},
    ],
}
_LIMITS = {
    "language": "bash",
    "code": "seq 3 > numbers.txt",
    "limits": {"run": {"wall_ms": 1000, "memory_bytes": 67108864}},
    "artifacts": ["*.txt"],
}
_RUN = Body(
    wire.RunRequest,
    {
        "python": ("A program of one file", {"language": "python", "code": "print(6 * 7)"}),
        "input": ("Standard input and arguments", _INPUT),
        "files": ("Several files", _FILES),
        "limits": ("Limits, and a file returned after the run", _LIMITS),
    },
)
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
_BASE64 = Parameter(
    "base64", "Also return the exact bytes of output that is not UTF-8.", "query", {"type": "boolean", "default": False}
)
# fmt: off
_RUNS = [
    Operation("POST /runs", "create_run", "Run a program",
        {
            200: Answer("The run has ended.", wire.ResultWithOutput, example=_RESULT),
            202: Answer("The run has been accepted.", wire.RunState,
                {"Location": "URL of the run.", "Preference-Applied": "`respond-async`"}, _QUEUED),
        },
        _RUN,
        description=(
            "Responds when the program has ended. With `Prefer: respond-async` it responds at once, and the run is polled, "
            "followed and cancelled by its id. Closing the connection before the response cancels the run."
        ),
        parameters=[Parameter("Prefer", "`respond-async`: respond at once.", "header")]),
    Operation("GET /runs/{run_id}", "get_run", "Get the state of an asynchronous run",
        Answer("The state, with the result once the run has ended.", wire.RunState, example=_QUEUED), parameters=[_BASE64],
        errors=[400]),
    Operation("DELETE /runs/{run_id}", "cancel_run", "Cancel an asynchronous run", Answer("The run has ended.", wire.RunState),
        description="Responds once the run is cleaned up. A run that has already ended is left unchanged."),
    Operation("GET /runs/{run_id}/events", "follow_run", "Follow an asynchronous run",
        {
            200: Answer("The events.", {EVENTS: str}),
            204: Answer("No more events: the last one has been seen already. A browser stops reconnecting."),
        },
        description=(
            "Server-sent events from the first one, or from the one after `Last-Event-ID`. The stream ends after `finished`. "
            "The data of each is one of the schemas `StageStarted`, `Output`, `StageExited` and `Finished`."
        ),
        parameters=[Parameter("Last-Event-ID", "Sequence number of the last event seen.", "header"), _BASE64],
        errors=[400], security=EVENT_SOURCE_TOKEN),
]
_SERVER = [
    Operation("GET /runtimes", "list_runtimes", "List the available runtimes", Answer("The runtimes.", list[wire.RuntimeEntry]),
        security=NO_TOKEN),
    Operation("GET /health", "get_health", "Check whether the server accepts runs",
        {200: Answer("It does.", wire.Health), 503: Answer("The server is shutting down.", wire.Health)}, security=NO_TOKEN),
    Operation("GET /metrics", "get_metrics", "Metrics for Prometheus", Answer("The metrics.", {TEXT: str})),
]
# fmt: on

DOOR = Door(
    tags={
        RUNS: (
            "Running programs. Interactive runs (input, signals, terminals) go over a WebSocket at `/api/v1/runs/live`, "
            "which OpenAPI cannot describe: its messages are the schemas from `Start` to `Cancel`."
        ),
        SERVER: "Available runtimes, and the state of the server.",
    },
    groups=[
        Group(RUNS, _RUNS, PREFIX, [Parameter("run_id", "Id of an asynchronous run.", example=_ID)]),
        Group(SERVER, _SERVER, PREFIX),
    ],
    failure=wire.ErrorBody,
    also=(events.AnyEvent, live.Message),
)
