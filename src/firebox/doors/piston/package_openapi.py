"""What version 3 offers, as OpenAPI. In words: docs/packages-api.md."""

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
    """A job with one package: its program comes as `code` or as `files`."""

    code: Annotated[str | None, Meta(description="Short for `files` with one file.")] = None
    files: Annotated[list[File] | None, Meta(description="The first text file is the main file.")] = None
    language: Annotated[str | None, Meta(description="Which one, where the package brings several.")] = None
    stdin: str = ""
    args: list[str] = field(default_factory=list[str])
    compile_args: Annotated[list[str], Meta(description="Arguments of the compiler, of those that its language allows.")] = field(
        default_factory=list[str]
    )
    cache: Annotated[model.CacheLevel | None, Meta(description="What may be kept and served again.")] = None


class InstallRequest(Struct):
    """Nothing is asked yet: an empty object."""


_REPOSITORY = Parameter("repository", "Name of a repository in the settings; `all`: every one of them.", example="all")
_PACKAGE = Parameter("package", "Name of the package.", example="python")
_RANGE = Parameter("version", "SemVer range; the newest match.", example="*")
_VERSION = Parameter("version", "Version of an installed package.")
_OF_REPOSITORY = f"{PREFIX}/repos/{{repository}}/packages"
_INSTALLED = f"{PREFIX}/packages/{{package}}/{{version}}"
_UPSTREAM = (404, 409, 422, 502)


def describe() -> Door:
    """Describe the operations. All of them are for admins, or for programs of this machine where nobody has to log in."""
    return Door(
        tags={TAG: "Version 3: repositories, packages, and jobs with one certain package. For admins."},
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
                Parameter("sync", "Get its index anew first.", "query", schema={"type": "boolean", "default": False}),
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
            "Show the newest match of a repository",
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
            "Install a package with what it depends on",
            description=(
                "With `Accept: text/event-stream` or `application/x-ndjson` the answer is a stream: `V3Progress` again and "
                "again, and in the end `V3Installation` or `V3StreamedFailure`."
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
            answers={200: Answer("The packages and what they bring.", list[package_wire.InstalledPackage])},
            errors=ASKER,
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "get",
            _INSTALLED,
            "get_installed_package",
            TAG,
            "Show an installed package",
            parameters=named,
            answers={200: Answer("The package and what it brings.", package_wire.InstalledPackage)},
            errors=(404, *ASKER),
            security=OPERATOR_TOKEN,
        ),
        Operation(
            "delete",
            _INSTALLED,
            "uninstall_package",
            TAG,
            "Uninstall a package",
            description="Once nothing runs with it any more.",
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
            "Run a job with this very package",
            description="It counts against no quota.",
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
            "Forget what is kept of jobs with a package",
            parameters=named,
            answers={200: Answer("It is forgotten.", package_wire.Purged)},
            errors=(404, *ASKER),
            security=OPERATOR_TOKEN,
        ),
    ]
