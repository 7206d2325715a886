"""Exceptions for failures of the service. What a user's *program* does is data in a result, never an exception.

    FireboxError
    ├── RequestError        the request is invalid
    │   └── InvalidRequest, UnknownRuntime, LimitTooHigh, LimitNotEnforceable, NotFound, Conflict, Unauthenticated, Forbidden
    ├── CapacityError       try again later
    │   └── QueueFull, BodiesFull, RateLimited, ShuttingDown, PartUnavailable
    ├── SettingsError       a setting is invalid
    ├── ContainerError      the container engine failed to serve a request
    ├── PackageError        a package or its repository is broken
    │   └── RepositoryError, DownloadFailed, WrongChecksum, NotTrusted, UnusablePackage, DependencyConflict, BuildFailed
    └── SandboxError        the sandbox failed: step and errno

Each class has a stable dotted `code`, a one-sentence message with the values, and a `hint` where the reader can act.
Each door has one table that maps classes to responses of its protocol.
"""

from __future__ import annotations

from firebox.domain.redaction import hide_secret


class FireboxError(Exception):
    """Base class of all errors that doors translate. code: stable and dotted. hint: what the reader can do, or ""."""

    code = "internal"

    def __init_subclass__(cls, code: str = "") -> None:
        cls.code = code or cls.code

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(FireboxError, code="request"):
    """The request is invalid; retrying it unchanged fails again."""


class InvalidRequest(RequestError, code="request.invalid"):
    """A field is missing or has a wrong type or value. where: the field as the client spelled it ("files[0].name"), or ""."""

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where


class UnknownRuntime(RequestError, code="request.unknown_runtime"):
    """No runtime matches the selector. selector: name or alias; version: the requested range."""

    def __init__(self, selector: str, version: str, *, hint: str = "") -> None:
        super().__init__(f"no runtime matches {selector!r} at version {version!r}", hint=hint)
        self.selector = selector
        self.version = version


class LimitTooHigh(RequestError, code="request.limit_too_high"):
    """A limit exceeds the operator's maximum. limit: stage and name ("run.memory_bytes")."""

    def __init__(self, limit: str, *, asked: float, allowed: float) -> None:
        super().__init__(f"{limit} is {asked}, at most {allowed} is allowed")
        self.limit = limit
        self.asked = asked
        self.allowed = allowed


class LimitNotEnforceable(RequestError, code="request.limit_not_enforceable"):
    """This host cannot enforce a limit; the request is rejected rather than run without it."""

    def __init__(self, limit: str, *, hint: str) -> None:
        super().__init__(f"{limit} cannot be enforced on this host", hint=hint)
        self.limit = limit


class NotFound(RequestError, code="request.not_found"):
    """No such object. kind: "run", "package" ...; name: as requested."""

    def __init__(self, kind: str, name: str, *, hint: str = "") -> None:
        super().__init__(f"no such {kind}: {name!r}", hint=hint)
        self.kind = kind
        self.name = name


class Conflict(RequestError, code="request.conflict"):
    """The request is valid, but not possible in the current state."""


class Unauthenticated(RequestError, code="request.unauthenticated"):
    """Credentials are missing or wrong."""


class Forbidden(RequestError, code="request.forbidden"):
    """The client is authenticated but not authorized."""


class CapacityError(FireboxError, code="capacity"):
    """The request is valid; retry it after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError, code="capacity.queue_full"):
    """All slots are busy and the queue, or this client's share of it, is full."""


class BodiesFull(CapacityError, code="capacity.bodies_full"):
    """The memory budget for requests and responses is exhausted. what: for the message; allowed_bytes: size of the budget."""

    def __init__(self, what: str, allowed_bytes: int) -> None:
        super().__init__(f"{what} would be more than {allowed_bytes} bytes", retry_after_s=1.0)


class RateLimited(CapacityError, code="capacity.rate_limited"):
    """The client exceeded a rate limit or quota. limit: its name ("runs_per_minute"); allowed: its value."""

    def __init__(self, limit: str, allowed: int, *, retry_after_s: float) -> None:
        super().__init__(f"{limit.replace('_', ' ')}: the {allowed} that are allowed are used up", retry_after_s=retry_after_s)
        self.limit = limit
        self.allowed = allowed


class PartUnavailable(CapacityError, code="capacity.part_unavailable"):
    """A dependency does not respond. part: "database", "container engine" or "sign-on service"."""

    def __init__(self, part: str, *, detail: str = "", retry_after_s: float = 5.0, hint: str = "") -> None:
        super().__init__(f"the {part} does not answer{': ' + detail if detail else ''}", retry_after_s=retry_after_s, hint=hint)
        self.part = part


class ShuttingDown(CapacityError, code="capacity.shutting_down"):
    """The server is shutting down and accepts no new runs."""


class SettingsError(FireboxError, code="settings"):
    """A setting has an invalid value. source: where it came from ("environment FIREBOX_PORT"), or ""."""

    def __init__(self, setting: str, *, value: object, allowed: str, source: str = "", hint: str = "") -> None:
        origin = f" (from {source})" if source else ""
        value = hide_secret(value)
        super().__init__(f"setting {setting} is {value!r}{origin}; allowed: {allowed}", hint=hint)
        self.setting = setting
        self.value = value
        self.allowed = allowed
        self.source = source


class ContainerError(FireboxError, code="container"):
    """The container engine failed to serve a request. The message quotes it."""


class PackageError(FireboxError, code="package"):
    """A package or its repository is broken."""


class RepositoryError(PackageError, code="package.repository"):
    """An index cannot be fetched or parsed. repository: its name in the settings."""

    def __init__(self, repository: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"repository {repository}: {message}", hint=hint)


class DownloadFailed(PackageError, code="package.download"):
    """The file of a package cannot be fetched, or has the wrong size."""


class WrongChecksum(PackageError, code="package.checksum"):
    """The checksum of a file differs from the index."""


class NotTrusted(PackageError, code="package.not_trusted"):
    """There is no signature by a trusted key, or an older index was replayed."""


class UnusablePackage(PackageError, code="package.unusable"):
    """The contents of a package are damaged, malicious or for another machine."""


class DependencyConflict(PackageError, code="package.dependencies"):
    """Dependencies are missing, cyclic, or require incompatible versions."""


class BuildFailed(PackageError, code="package.build"):
    """Building a package from its recipe failed. The hint quotes the last output of the failed tool."""


class SandboxError(FireboxError, code="sandbox"):
    """The sandbox failed, not the program in it. step: the operation that failed, for people."""

    def __init__(self, step: str, errno: int | None = None, *, detail: str = "", hint: str = "") -> None:
        where = f" (errno {errno})" if errno else ""
        super().__init__(f"the sandbox failed at {step!r}{where}{': ' + detail if detail else ''}", hint=hint)
