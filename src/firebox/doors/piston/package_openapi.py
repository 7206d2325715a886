"""OpenAPI description of Piston v3. Prose: docs/reference/packages-api.md."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from firebox.domain import model
from firebox.doors.http.openapi import ASKER, BODY, EVENTS, JSON, OPERATOR_TOKEN, Answer, Door, Method, Operation, Parameter
from firebox.doors.piston import package_wire
from firebox.doors.piston.piston_openapi import File, Limits

TAG = "packages"
PREFIX = "/api/v3"


class ExecuteRequest(Limits, kw_only=True):
    """A job for one package, with its program as `code` or as `files`."""

    code: Annotated[str | None, Meta(description="Shorthand for a single file.")] = None
    files: Annotated[list[File] | None, Meta(description="The first text file is the main file.")] = None
    language: Annotated[str | None, Meta(description="Required if the package provides several languages.")] = None
    stdin: str = ""
    args: list[str] = field(default_factory=list[str])
    compile_args: Annotated[list[str], Meta(description="Compiler arguments that the language allows.")] = field(
        default_factory=list[str]
    )
    cache: Annotated[model.CacheLevel | None, Meta(description="Cache level: what may be stored and reused.")] = None


class InstallRequest(Struct):
    """Currently without parameters: an empty object."""


_REPOSITORY = Parameter("repository", "Name of a configured repository, or `all`.", example="all")
_PACKAGE = Parameter("package", "Package name.", example="python")
_RANGE = Parameter("version", "SemVer range; selects the newest match.", example="*")
_VERSION = Parameter("version", "Version of an installed package.")
_OF_REPOSITORY = f"{PREFIX}/repos/{{repository}}/packages"
_INSTALLED = f"{PREFIX}/packages/{{package}}/{{version}}"
_UPSTREAM = (404, 409, 422, 502)


def describe() -> Door:
    """Describe the operations. All require an admin, or a client on this machine if accounts are disabled."""
    return Door(
        tags={TAG: "Version 3: repositories, packages, and jobs for a specific package. Admins only."},
        failure=package_wire.Failure,
        prefix="V3",
        also=(package_wire.Progress, package_wire.StreamedFailure),
        operations=[*_repositories(), *_installed()],
    )


def _operation(method: Method, path: str, id_: str, summary: str, **fields: Any) -> Operation:
    return Operation(method, path, id_, TAG, summary, security=OPERATOR_TOKEN, **fields)


def _repositories() -> list[Operation]:
    return [
        _operation(
            "get",
            f"{PREFIX}/repos",
            "list_repositories",
            "List the repositories",
            answers={200: Answer("Their names.", list[package_wire.Repository])},
            errors=ASKER,
        ),
        _operation(
            "get",
            _OF_REPOSITORY,
            "list_repository_packages",
            "List the packages of a repository",
            parameters=[
                _REPOSITORY,
                Parameter("sync", "Fetch the index first.", "query", schema={"type": "boolean", "default": False}),
            ],
            answers={200: Answer("The packages.", list[package_wire.Package])},
            errors=(400, *_UPSTREAM, *ASKER),
        ),
        _operation(
            "get",
            f"{_OF_REPOSITORY}/{{package}}/{{version}}",
            "get_repository_package",
            "Get the newest matching package of a repository",
            parameters=[_REPOSITORY, _PACKAGE, _RANGE],
            answers={200: Answer("The package.", package_wire.Package)},
            errors=(400, *_UPSTREAM, *ASKER),
        ),
        _operation(
            "post",
            f"{_OF_REPOSITORY}/{{package}}/{{version}}/install",
            "install_package",
            "Install a package with its dependencies",
            description=(
                "With `Accept: text/event-stream` or `application/x-ndjson` the answer is a stream of `V3Progress`, "
                "followed by `V3Installation` or `V3StreamedFailure`."
            ),
            parameters=[_REPOSITORY, _PACKAGE, _RANGE],
            body=InstallRequest,
            answers={200: Answer("It is installed.", media={JSON: package_wire.Installation, EVENTS: str})},
            errors=(*BODY, *_UPSTREAM, *ASKER),
        ),
    ]


def _installed() -> list[Operation]:
    named = [_PACKAGE, _VERSION]
    return [
        _operation(
            "get",
            f"{PREFIX}/packages",
            "list_installed_packages",
            "List the installed packages",
            answers={200: Answer("The packages and their runtimes.", list[package_wire.InstalledPackage])},
            errors=ASKER,
        ),
        _operation(
            "get",
            _INSTALLED,
            "get_installed_package",
            "Get an installed package",
            parameters=named,
            answers={200: Answer("The package and its runtimes.", package_wire.InstalledPackage)},
            errors=(404, *ASKER),
        ),
        _operation(
            "delete",
            _INSTALLED,
            "uninstall_package",
            "Uninstall a package",
            description="Waits for active runs.",
            parameters=named,
            answers={200: Answer("It is uninstalled.", package_wire.PackageName)},
            errors=(404, 409, *ASKER),
        ),
        _operation(
            "post",
            f"{_INSTALLED}/execute",
            "execute_with_package",
            "Run a job with an installed package",
            description="Does not count against any quota.",
            parameters=named,
            body=ExecuteRequest,
            examples={"code": ("A program", {"code": "print(6 * 7)"})},
            answers={200: Answer("The job has ended.", package_wire.Execution)},
            errors=(*BODY, 404, *ASKER),
        ),
        _operation(
            "delete",
            f"{_INSTALLED}/cache",
            "purge_package_cache",
            "Purge the job cache of a package",
            parameters=named,
            answers={200: Answer("The cache is purged.", package_wire.Purged)},
            errors=(404, *ASKER),
        ),
    ]
