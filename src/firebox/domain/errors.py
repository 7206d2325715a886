"""Exceptions for failures of the service. What a user's *program* does is data in a result, never an exception.

    FireboxError
    ├── RequestError            the request is invalid
    │   ├── InvalidRequest      a field is missing, of the wrong type or out of range
    │   ├── UnknownRuntime      no runtime matches the selector
    │   ├── LimitTooHigh        a limit exceeds the operator's maximum
    │   ├── LimitNotEnforceable this host cannot enforce a limit
    │   ├── NotFound            no such run, package or user
    │   ├── Conflict            not possible in the current state
    │   ├── Unauthenticated     credentials are missing or wrong
    │   └── Forbidden           the client is authenticated but not authorized
    ├── CapacityError           try again later
    │   ├── QueueFull           all slots are busy and the queue, or this client's share of it, is full
    │   ├── BodiesFull          the memory budget for requests and responses is exhausted
    │   ├── RateLimited         the client exceeded a rate limit or quota
    │   ├── ShuttingDown        the server accepts no new runs
    │   └── PartUnavailable     a dependency does not respond: database, container engine, sign-on service
    ├── SettingsError           a setting is invalid
    ├── ContainerError          the container engine failed to serve a request
    ├── PackageError            a package or its repository is broken
    │   ├── RepositoryError     an index cannot be fetched or parsed
    │   ├── DownloadFailed      the file cannot be fetched, or has the wrong size
    │   ├── WrongChecksum       the file does not match the index
    │   ├── NotTrusted          no signature by a trusted key, or a replayed older index
    │   ├── UnusablePackage     the contents are damaged, malicious or for another machine
    │   ├── DependencyConflict  dependencies are missing, cyclic, or require incompatible versions
    │   └── BuildFailed         building a package from its recipe failed
    └── SandboxError            the sandbox failed: step and errno

Each class has a stable dotted `code`, a one-sentence message with the values, and a `hint` where the reader can act.
Each door has one table that maps classes to responses of its protocol.
"""

from __future__ import annotations

from firebox.domain.redaction import hide_secret


class FireboxError(Exception):
    """Base class of all errors that doors translate.

    code: stable and dotted, for programs. hint: what the reader can do, or "".
    """

    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(FireboxError):
    """The request is invalid; retrying it unchanged fails again."""

    code = "request"


class InvalidRequest(RequestError):
    """A field is missing or has a wrong type or value. where: the field as the client spelled it ("files[0].name"), or ""."""

    code = "request.invalid"

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where


class UnknownRuntime(RequestError):
    """No runtime matches the selector. selector: name or alias; version: the requested range."""

    code = "request.unknown_runtime"

    def __init__(self, selector: str, version: str, *, hint: str = "") -> None:
        super().__init__(f"no runtime matches {selector!r} at version {version!r}", hint=hint)
        self.selector = selector
        self.version = version


class LimitTooHigh(RequestError):
    """A limit exceeds the operator's maximum. limit: stage and name ("run.memory_bytes")."""

    code = "request.limit_too_high"

    def __init__(self, limit: str, *, asked: float, allowed: float) -> None:
        super().__init__(f"{limit} is {asked}, at most {allowed} is allowed")
        self.limit = limit
        self.asked = asked
        self.allowed = allowed


class LimitNotEnforceable(RequestError):
    """This host cannot enforce a limit; the request is rejected rather than run without it."""

    code = "request.limit_not_enforceable"

    def __init__(self, limit: str, *, hint: str) -> None:
        super().__init__(f"{limit} cannot be enforced on this host", hint=hint)
        self.limit = limit


class NotFound(RequestError):
    """No such object. kind: "run", "package" ...; name: as requested."""

    code = "request.not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no such {kind}: {name!r}")
        self.kind = kind
        self.name = name


class Conflict(RequestError):
    code = "request.conflict"


class Unauthenticated(RequestError):
    code = "request.unauthenticated"


class Forbidden(RequestError):
    code = "request.forbidden"


class CapacityError(FireboxError):
    """The request is valid; retry it after `retry_after_s` seconds."""

    code = "capacity"

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    code = "capacity.queue_full"


class BodiesFull(CapacityError):
    """The memory budget for requests and responses is exhausted. what: for the message; allowed_bytes: size of the budget."""

    code = "capacity.bodies_full"

    def __init__(self, what: str, allowed_bytes: int) -> None:
        super().__init__(f"{what} would be more than {allowed_bytes} bytes", retry_after_s=1.0)


class RateLimited(CapacityError):
    """The client exceeded a rate limit or quota. limit: its name ("runs_per_minute"); allowed: its value."""

    code = "capacity.rate_limited"

    def __init__(self, limit: str, allowed: int, *, retry_after_s: float) -> None:
        super().__init__(f"{limit.replace('_', ' ')}: the {allowed} that are allowed are used up", retry_after_s=retry_after_s)
        self.limit = limit
        self.allowed = allowed


class PartUnavailable(CapacityError):
    """A dependency does not respond. part: "database", "container engine" or "sign-on service"."""

    code = "capacity.part_unavailable"

    def __init__(self, part: str, *, detail: str = "", retry_after_s: float = 5.0, hint: str = "") -> None:
        super().__init__(f"the {part} does not answer{': ' + detail if detail else ''}", retry_after_s=retry_after_s, hint=hint)
        self.part = part


class ShuttingDown(CapacityError):
    code = "capacity.shutting_down"


class SettingsError(FireboxError):
    """A setting has an invalid value. source: where it came from ("environment FIREBOX_PORT"), or ""."""

    code = "settings"

    def __init__(self, setting: str, *, value: object, allowed: str, source: str = "", hint: str = "") -> None:
        origin = f" (from {source})" if source else ""
        value = hide_secret(value)
        super().__init__(f"setting {setting} is {value!r}{origin}; allowed: {allowed}", hint=hint)
        self.setting = setting
        self.value = value
        self.allowed = allowed
        self.source = source


class ContainerError(FireboxError):
    """The container engine failed to serve a request. The message quotes it."""

    code = "container"


class PackageError(FireboxError):
    code = "package"


class RepositoryError(PackageError):
    """An index cannot be fetched or parsed. repository: its name in the settings."""

    code = "package.repository"

    def __init__(self, repository: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"repository {repository}: {message}", hint=hint)


class DownloadFailed(PackageError):
    code = "package.download"


class WrongChecksum(PackageError):
    code = "package.checksum"


class NotTrusted(PackageError):
    code = "package.not_trusted"


class UnusablePackage(PackageError):
    code = "package.unusable"


class DependencyConflict(PackageError):
    code = "package.dependencies"


class BuildFailed(PackageError):
    """Building a package from its recipe failed. The hint quotes the last output of the failed tool."""

    code = "package.build"


class SandboxError(FireboxError):
    """The sandbox failed, not the program in it. step: the operation that failed, for people."""

    code = "sandbox"

    def __init__(self, step: str, errno: int | None = None, *, detail: str = "", hint: str = "") -> None:
        where = f" (errno {errno})" if errno else ""
        super().__init__(f"the sandbox failed at {step!r}{where}{': ' + detail if detail else ''}", hint=hint)
