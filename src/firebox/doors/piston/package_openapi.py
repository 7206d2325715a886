"""OpenAPI description of Piston v3. Prose: docs/reference/packages-api.md."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from firebox.domain import model
from firebox.doors.http.openapi import ASKER, BODY, EVENTS, JSON, OPERATOR_TOKEN, Answer, Door, Operation, Parameter
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


def _repositories() -> list[Operation]:
    return [
        Operation(
            "get",
            f"{PREFIX}/repos",
            "list_repositories",
            TAG,
            "List the repositories",
            answers={200: Answer("Their names.", list[package_wire.Repository])},
            errors=ASKER,
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "get",
            _OF_REPOSITORY,
            "list_repository_packages",
            TAG,
            "List the packages of a repository",
            parameters=[
                _REPOSITORY,
                Parameter("sync", "Fetch the index first.", "query", schema={"type": "boolean", "default": False}),
            ],
            answers={200: Answer("The packages.", list[package_wire.Package])},
            errors=(400, *_UPSTREAM, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "get",
            f"{_OF_REPOSITORY}/{{package}}/{{version}}",
            "get_repository_package",
            TAG,
            "Get the newest matching package of a repository",
            parameters=[_REPOSITORY, _PACKAGE, _RANGE],
            answers={200: Answer("The package.", package_wire.Package)},
            errors=(400, *_UPSTREAM, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "post",
            f"{_OF_REPOSITORY}/{{package}}/{{version}}/install",
            "install_package",
            TAG,
            "Install a package with its dependencies",
            description=(
                "With `Accept: text/event-stream` or `application/x-ndjson` the answer is a stream of `V3Progress`, "
                "followed by `V3Installation` or `V3StreamedFailure`."
            ),
            parameters=[_REPOSITORY, _PACKAGE, _RANGE],
            body=InstallRequest,
            answers={200: Answer("It is installed.", media={JSON: package_wire.Installation, EVENTS: str})},
            errors=(*BODY, *_UPSTREAM, *ASKER),
            security=OPERATOR_TOKEN,
        ),
    ]


def _installed() -> list[Operation]:
    named = [_PACKAGE, _VERSION]
    return [
        Operation(
            "get",
            f"{PREFIX}/packages",
            "list_installed_packages",
            TAG,
            "List the installed packages",
            answers={200: Answer("The packages and their runtimes.", list[package_wire.InstalledPackage])},
            errors=ASKER,
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "get",
            _INSTALLED,
            "get_installed_package",
            TAG,
            "Get an installed package",
            parameters=named,
            answers={200: Answer("The package and its runtimes.", package_wire.InstalledPackage)},
            errors=(404, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "delete",
            _INSTALLED,
            "uninstall_package",
            TAG,
            "Uninstall a package",
            description="Waits for active runs.",
            parameters=named,
            answers={200: Answer("It is uninstalled.", package_wire.PackageName)},
            errors=(404, 409, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "post",
            f"{_INSTALLED}/execute",
            "execute_with_package",
            TAG,
            "Run a job with an installed package",
            description="Does not count against any quota.",
            parameters=named,
            body=ExecuteRequest,
            examples={"code": ("A program", {"code": "print(6 * 7)"})},
            answers={200: Answer("The job has ended.", package_wire.Execution)},
            errors=(*BODY, 404, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "delete",
            f"{_INSTALLED}/cache",
            "purge_package_cache",
            TAG,
            "Purge the job cache of a package",
            parameters=named,
            answers={200: Answer("The cache is purged.", package_wire.Purged)},
            errors=(404, *ASKER),
            security=OPERATOR_TOKEN,
        ),
    ]
