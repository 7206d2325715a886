"""OpenAPI description of Piston v3. Prose: docs/reference/packages-api.md."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from firebox.domain import model
from firebox.doors.http.openapi import EVENTS, JSON, OPERATOR_TOKEN, Answer, Body, Door, Group, Operation, Parameter
from firebox.doors.piston import package_wire
from firebox.doors.piston.package_routes import PREFIX
from firebox.doors.piston.piston_openapi import File, Limits

TAG = "packages"


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
_UPSTREAM = (409, 422, 502)
# fmt: off
_IN_REPOSITORIES = [
    Operation("GET", "list_repositories", "List the repositories", Answer("Their names.", list[package_wire.Repository])),
    Operation("GET /{repository}/packages", "list_repository_packages", "List the packages of a repository",
        Answer("The packages.", list[package_wire.Package]),
        parameters=[Parameter("sync", "Fetch the index first.", "query", {"type": "boolean", "default": False})],
        errors=(400, *_UPSTREAM)),
    Operation("GET /{repository}/packages/{package}/{version}", "get_repository_package",
        "Get the newest matching package of a repository", Answer("The package.", package_wire.Package),
        errors=(400, *_UPSTREAM)),
    Operation(
        "POST /{repository}/packages/{package}/{version}/install",
        "install_package",
        "Install a package with its dependencies",
        Answer("It is installed.", {JSON: package_wire.Installation, EVENTS: str}),
        Body(InstallRequest),
        description=(
            "With `Accept: text/event-stream` or `application/x-ndjson` the answer is a stream of `V3Progress`, "
            "followed by `V3Installation` or `V3StreamedFailure`."
        ),
        errors=_UPSTREAM,
    ),
]
_INSTALLED = [
    Operation("GET", "list_installed_packages", "List the installed packages",
        Answer("The packages and their runtimes.", list[package_wire.InstalledPackage])),
    Operation("GET /{package}/{version}", "get_installed_package", "Get an installed package",
        Answer("The package and its runtimes.", package_wire.InstalledPackage)),
    Operation("DELETE /{package}/{version}", "uninstall_package", "Uninstall a package",
        Answer("It is uninstalled.", package_wire.PackageName), description="Waits for active runs.", errors=[409]),
    Operation("POST /{package}/{version}/execute", "execute_with_package", "Run a job with an installed package",
        Answer("The job has ended.", package_wire.Execution),
        Body(ExecuteRequest, {"code": ("A program", {"code": "print(6 * 7)"})}), description="Does not count against any quota."),
    Operation("DELETE /{package}/{version}/cache", "purge_package_cache", "Purge the job cache of a package",
        Answer("The cache is purged.", package_wire.Purged)),
]
# fmt: on

DOOR = Door(
    tags={TAG: "Version 3: repositories, packages, and jobs for a specific package. Admins only."},
    groups=[
        Group(TAG, _IN_REPOSITORIES, f"{PREFIX}/repos", [_REPOSITORY, _PACKAGE, _RANGE], OPERATOR_TOKEN),
        Group(TAG, _INSTALLED, f"{PREFIX}/packages", [_PACKAGE, _VERSION], OPERATOR_TOKEN),
    ],
    failure=package_wire.Failure,
    prefix="V3",
    also=(package_wire.Progress, package_wire.StreamedFailure),
)
