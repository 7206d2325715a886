"""OpenAPI description of Piston's version 2 API."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from firebox.doors.http.openapi import NO_TOKEN, OPERATOR_TOKEN, Answer, Body, Door, Group, Operation
from firebox.doors.piston import wire
from firebox.doors.piston.routes import PREFIXES

TAG = "piston"


class File(Struct):
    """A file of a job."""

    content: str
    name: Annotated[str, Meta(description="Default: `file0.code`, `file1.code` and so on.")] = ""
    encoding: Literal["utf8", "base64", "hex"] = "utf8"


class Limits(Struct):
    """Limits of a job. Omitted limits have the operator's defaults."""

    compile_timeout: Annotated[int | None, Meta(description="Wall time in milliseconds.")] = None
    run_timeout: Annotated[int | None, Meta(description="Wall time in milliseconds.")] = None
    compile_cpu_time: Annotated[int | None, Meta(description="CPU time in milliseconds.")] = None
    run_cpu_time: Annotated[int | None, Meta(description="CPU time in milliseconds.")] = None
    compile_memory_limit: Annotated[int | None, Meta(description="Bytes; -1 means no limit.")] = None
    run_memory_limit: Annotated[int | None, Meta(description="Bytes; -1 means no limit.")] = None


class ExecuteRequest(Limits, kw_only=True):
    """A job."""

    language: Annotated[str, Meta(description="Name or alias of a language.")]
    version: Annotated[str, Meta(description="SemVer range.")]
    files: Annotated[list[File], Meta(description="The first file is the main file; at least one must be text.")]
    stdin: str = ""
    args: list[str] = []
    compile_args: Annotated[list[str], Meta(description="Compiler arguments; each language has a list of allowed ones.")] = []


class PackageRequest(Struct):
    """A package to install or uninstall."""

    language: str
    version: Annotated[str, Meta(description="SemVer range.")]


_RUN = Body(
    ExecuteRequest,
    {
        "python": ("A single-file program", {"language": "python", "version": "*", "files": [{"content": "print(6 * 7)"}]}),
        "input": (
            "Standard input and a limit",
            {
                "language": "python",
                "version": "3",
                "files": [{"name": "main.py", "content": "print(input())"}],
                "stdin": "Ada",
                "run_timeout": 1000,
            },
        ),
    },
)
_PACKAGE = Body(PackageRequest, {"python": ("The newest version", {"language": "python", "version": "*"})})
# fmt: off
_OPERATIONS = [
    Operation("POST /execute", "piston_execute", "Run a job", Answer("The result of the job.", wire.Execution), _RUN),
    Operation("GET /runtimes", "piston_list_runtimes", "List the available runtimes",
        Answer("Available runtimes.", list[wire.RuntimeEntry]), security=NO_TOKEN),
    Operation("GET /packages", "piston_list_packages", "List the packages",
        Answer("Available and installed packages, and the runtimes of the host.", list[wire.PackageEntry])),
    Operation("POST /packages", "piston_install_package", "Install a package", Answer("The installed package.", wire.PackageName),
        _PACKAGE, errors=[404], security=OPERATOR_TOKEN),
    Operation("DELETE /packages", "piston_uninstall_package", "Uninstall a package",
        Answer("The uninstalled package.", wire.PackageName), _PACKAGE, errors=[404], security=OPERATOR_TOKEN),
]
# fmt: on

DOOR = Door(
    tags={TAG: "Piston's version 2 API, also below `/api/v2/piston`. Interactive jobs use the WebSocket `/api/v2/connect`."},
    groups=[Group(TAG, _OPERATIONS, PREFIXES[0])],
    failure=wire.Message,
    prefix="Piston",
)
