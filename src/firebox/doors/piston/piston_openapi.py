"""What Piston's version 2 offers, as OpenAPI. In words: docs/reference/piston.md."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from firebox.doors.http.openapi import ASKER, BODY, NO_TOKEN, OPERATOR_TOKEN, Answer, Door, Operation
from firebox.doors.piston import wire

TAG = "piston"
PREFIX = "/api/v2"


class File(Struct):
    """A file of a job."""

    content: str
    name: Annotated[str, Meta(description="Left out: `file0.code` and so on.")] = ""
    encoding: Literal["utf8", "base64", "hex"] = "utf8"


class Limits(Struct):
    """Limits of a job; what is left out has the operator's default."""

    compile_timeout: Annotated[int | None, Meta(description="Wall clock, in milliseconds.")] = None
    run_timeout: Annotated[int | None, Meta(description="Wall clock, in milliseconds.")] = None
    compile_cpu_time: Annotated[int | None, Meta(description="Processor time, in milliseconds.")] = None
    run_cpu_time: Annotated[int | None, Meta(description="Processor time, in milliseconds.")] = None
    compile_memory_limit: Annotated[int | None, Meta(description="Bytes; -1: no cap.")] = None
    run_memory_limit: Annotated[int | None, Meta(description="Bytes; -1: no cap.")] = None


class ExecuteRequest(Limits, kw_only=True):
    """A job."""

    language: Annotated[str, Meta(description="Name or alias of a language.")]
    version: Annotated[str, Meta(description="SemVer range.")]
    files: Annotated[list[File], Meta(description="The first one is the main file; one at least must be text.")]
    stdin: str = ""
    args: list[str] = field(default_factory=list[str])
    compile_args: Annotated[list[str], Meta(description="Arguments of the compiler, of those that its language allows.")] = field(
        default_factory=list[str]
    )


class PackageRequest(Struct):
    """Which package."""

    language: str
    version: Annotated[str, Meta(description="SemVer range.")]


EXAMPLES = {
    "python": (
        "A program of one file",
        {"language": "python", "version": "*", "files": [{"content": "print(6 * 7)"}]},
    ),
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
}
_PACKAGE = {"python": ("The newest one", {"language": "python", "version": "*"})}


def describe() -> Door:
    """Describe the operations."""
    return Door(
        tags={
            TAG: "Piston's version 2. All of it is at `/api/v2/piston` too. Interactive jobs: a WebSocket at `/api/v2/connect`."
        },
        failure=wire.Message,
        prefix="Piston",
        operations=[
            Operation(
                "post",
                f"{PREFIX}/execute",
                "piston_execute",
                TAG,
                "Run a job",
                body=ExecuteRequest,
                examples=EXAMPLES,
                answers={200: Answer("The job has ended.", wire.Execution)},
                errors=(*BODY, *ASKER),
            ),
            Operation(
                "get",
                f"{PREFIX}/runtimes",
                "piston_list_runtimes",
                TAG,
                "List what can run here",
                answers={200: Answer("The runtimes.", list[wire.RuntimeEntry])},
                security=NO_TOKEN,
            ),
            Operation(
                "get",
                f"{PREFIX}/packages",
                "piston_list_packages",
                TAG,
                "List the packages",
                answers={200: Answer("What can be installed, what is, and what the host brings.", list[wire.PackageEntry])},
                errors=ASKER,
            ),
            Operation(
                "post",
                f"{PREFIX}/packages",
                "piston_install_package",
                TAG,
                "Install a package",
                body=PackageRequest,
                examples=_PACKAGE,
                answers={200: Answer("It is installed.", wire.PackageName)},
                errors=(*BODY, *ASKER, 404),
                security=OPERATOR_TOKEN,
            ),
            Operation(
                "delete",
                f"{PREFIX}/packages",
                "piston_uninstall_package",
                TAG,
                "Uninstall a package",
                body=PackageRequest,
                examples=_PACKAGE,
                answers={200: Answer("It is uninstalled.", wire.PackageName)},
                errors=(*BODY, *ASKER, 404),
                security=OPERATOR_TOKEN,
            ),
        ],
    )
