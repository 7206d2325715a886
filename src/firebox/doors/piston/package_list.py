"""Package listing and lookup for the three package routes of Piston v2."""

from __future__ import annotations

from firebox.domain.errors import Conflict, NotFound
from firebox.packages.entry import Entry
from firebox.packages.installed.store import Installed
from firebox.packages.versions import newest
from firebox.service.packages import ALREADY_INSTALLED, PackageListing
from firebox.service.service import Service
from firebox.service.validation import check_selector


class NoSuchPackage(NotFound):
    """No package matches an install or uninstall request."""

    code = "request.not_found.package"

    def __init__(self, language: str, version: str) -> None:
        super().__init__("package", f"{language}-{version}")
        self.message = f"Requested package {language}-{version} does not exist"


async def list_packages(service: Service) -> list[PackageListing]:
    """List available and installed packages. Raises: RepositoryError, NotTrusted."""
    return await service.packages.all() if service.packages is not None else []


async def find_to_install(service: Service, language: str, version: str) -> Entry:
    """Find the newest matching package in the repositories by exact name; aliases do not match. Raises: NoSuchPackage; Conflict
    if it is only installed, or belongs to the host.
    """
    found = await _find_in_repositories(service, language, version)
    if found is not None:
        return found
    if _find_installed(service, language, version) or _find_on_host(service, language, version):
        raise Conflict(ALREADY_INSTALLED)
    raise NoSuchPackage(language, version)


async def find_to_uninstall(service: Service, language: str, version: str) -> Installed:
    """Find the newest matching installed package. Raises: NoSuchPackage; Conflict if it is not installed, or is the host's."""
    installed = _find_installed(service, language, version)
    if installed is not None:
        return installed
    known = await _find_in_repositories(service, language, version)
    if known is not None:
        raise Conflict(f"{known.name} is not installed")
    of_the_host = _find_on_host(service, language, version)
    if of_the_host is None:
        raise NoSuchPackage(language, version)
    raise Conflict(
        f"{of_the_host.name} is part of the host and cannot be uninstalled here: remove it with the host's package manager"
    )


async def _find_in_repositories(service: Service, language: str, version: str) -> Entry | None:
    if service.packages is None:
        return None
    try:
        return await service.packages.find(language, version)
    except NotFound:
        return None


def _find_installed(service: Service, language: str, version: str) -> Installed | None:
    return service.packages.find_installed(language, version) if service.packages is not None else None


def _find_on_host(service: Service, language: str, version: str) -> Entry | None:
    """Find the newest matching runtime of the host by exact name, as a pseudo-package."""
    check_selector(language, version)
    own = (runtime for runtime in service.runtimes() if runtime.language == language and not runtime.installed)
    return newest((Entry(language=language, version=runtime.version, download="") for runtime in own), version)
