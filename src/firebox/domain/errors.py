"""Every failure of the service itself; what a user's *program* did is data in a result, never an exception.

    FireboxError
    ├── RequestError            the request is at fault
    │   ├── InvalidRequest      a field is missing, of the wrong type or out of range
    │   ├── UnknownRuntime      no runtime matches the selector
    │   ├── LimitTooHigh        a limit above the operator's maximum
    │   ├── LimitNotEnforceable a limit that this host cannot hold
    │   ├── NotFound            no such run, package, user
    │   ├── Conflict            not possible in the present state
    │   ├── Unauthenticated
    │   └── Forbidden
    ├── CapacityError           try again later
    │   ├── QueueFull
    │   ├── BodiesFull          too much is held already of what clients send or do not take
    │   ├── RateLimited         this client has used up what it may use for now
    │   ├── ShuttingDown
    │   └── PartUnavailable     a part that we depend on does not answer: database, container engine, sign-on service
    ├── SettingsError           the operator's settings are at fault
    ├── ContainerError          the container engine took the request and could not serve it
    ├── PackageError            a package or its repository is at fault
    │   ├── RepositoryError     an index cannot be had or read
    │   ├── DownloadFailed      the file cannot be had, whole and of the announced size
    │   ├── WrongChecksum       it is not the file that the index announces
    │   ├── NotTrusted          no trusted key vouches for it, or an older index is played again
    │   ├── UnusablePackage     what is in it cannot be used: damaged, hostile, for another machine
    │   ├── DependencyConflict  two packages want versions of a third that exclude each other, or it is nowhere
    │   └── BuildFailed         a package could not be made from its recipe
    └── SandboxError            our own sandbox failed: step and errno

Each class has a stable dotted `code`, one sentence with the values, and a `hint` where a person can act.
Each door has one table from class to its protocol's answer.
"""

from __future__ import annotations

from firebox.domain.redaction import hide_secret


class FireboxError(Exception):
    """Base of every failure that a door translates.

    code: stable, dotted, for machines. hint: what a person can do, or "".
    """

    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RequestError(FireboxError):
    """The request is at fault: repeating it unchanged fails again."""

    code = "request"


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type or out of range. where: the field as the client wrote it, "files[0].name", or ""."""

    code = "request.invalid"

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.where = where


class UnknownRuntime(RequestError):
    """No runtime matches the selector. selector: name or alias; version: the range that was asked for."""

    code = "request.unknown_runtime"

    def __init__(self, selector: str, version: str, *, hint: str = "") -> None:
        super().__init__(f"no runtime matches {selector!r} at version {version!r}", hint=hint)
        self.selector = selector
        self.version = version


class LimitTooHigh(RequestError):
    """A limit above the operator's maximum. limit: its name with the stage ("run.memory_bytes")."""

    code = "request.limit_too_high"

    def __init__(self, limit: str, *, asked: float, allowed: float) -> None:
        super().__init__(f"{limit} is {asked}, at most {allowed} is allowed")
        self.limit = limit
        self.asked = asked
        self.allowed = allowed


class LimitNotEnforceable(RequestError):
    """A limit that this host has no means to hold; refused instead of dropped in silence."""

    code = "request.limit_not_enforceable"

    def __init__(self, limit: str, *, hint: str) -> None:
        super().__init__(f"{limit} cannot be enforced on this host", hint=hint)
        self.limit = limit


class NotFound(RequestError):
    """No such thing. kind: "run", "package" ...; name: what was asked for."""

    code = "request.not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no such {kind}: {name!r}")
        self.kind = kind
        self.name = name


class Conflict(RequestError):
    """Well formed, but not possible in the present state."""

    code = "request.conflict"


class Unauthenticated(RequestError):
    """Credentials are missing or wrong."""

    code = "request.unauthenticated"


class Forbidden(RequestError):
    """The caller is known and may not do this."""

    code = "request.forbidden"


class CapacityError(FireboxError):
    """Nothing is wrong with the request: try again in `retry_after_s` seconds."""

    code = "capacity"

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class QueueFull(CapacityError):
    """Every slot is busy and the queue (or this client's share of it) is full."""

    code = "capacity.queue_full"


class BodiesFull(CapacityError):
    """Too much is held already of what clients send or do not take. what: in words; allowed_bytes: how much of it may be held."""

    code = "capacity.bodies_full"

    def __init__(self, what: str, allowed_bytes: int) -> None:
        super().__init__(f"{what} would be more than {allowed_bytes} bytes", retry_after_s=1.0)
        self.allowed_bytes = allowed_bytes


class RateLimited(CapacityError):
    """The client has used up what it may use for now. limit: its name ("runs_per_minute"); allowed: how much of it."""

    code = "capacity.rate_limited"

    def __init__(self, limit: str, allowed: int, *, retry_after_s: float) -> None:
        super().__init__(f"{limit.replace('_', ' ')}: the {allowed} that are allowed are used up", retry_after_s=retry_after_s)
        self.limit = limit
        self.allowed = allowed


class PartUnavailable(CapacityError):
    """A part that we depend on does not answer. part: "database", "container engine", "sign-on service"."""

    code = "capacity.part_unavailable"

    def __init__(self, part: str, *, detail: str = "", retry_after_s: float = 5.0, hint: str = "") -> None:
        super().__init__(f"the {part} does not answer{': ' + detail if detail else ''}", retry_after_s=retry_after_s, hint=hint)
        self.part = part


class ShuttingDown(CapacityError):
    """The server takes no new runs because it is stopping."""

    code = "capacity.shutting_down"


class SettingsError(FireboxError):
    """A setting has a value that is not allowed. source: where the value came from ("environment FIREBOX_PORT"), or ""."""

    code = "settings"

    def __init__(self, setting: str, value: object, allowed: str, *, source: str = "", hint: str = "") -> None:
        origin = f" (from {source})" if source else ""
        value = hide_secret(value)
        super().__init__(f"setting {setting} is {value!r}{origin}; allowed: {allowed}", hint=hint)
        self.setting = setting
        self.value = value
        self.allowed = allowed
        self.source = source


class ContainerError(FireboxError):
    """The container engine took the request and could not serve it. Its words are in the message."""

    code = "container"


class PackageError(FireboxError):
    """A package or its repository is at fault, not the request."""

    code = "package"


class RepositoryError(PackageError):
    """An index cannot be had or read. repository: its name in the settings."""

    code = "package.repository"

    def __init__(self, repository: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"repository {repository}: {message}", hint=hint)
        self.repository = repository


class DownloadFailed(PackageError):
    """A package's file cannot be had, whole and of the announced size."""

    code = "package.download"


class WrongChecksum(PackageError):
    """The file is not the one that the index announces."""

    code = "package.checksum"


class NotTrusted(PackageError):
    """No trusted key vouches for it, or an older index is played again."""

    code = "package.not_trusted"


class UnusablePackage(PackageError):
    """What is in a package cannot be used: damaged, hostile, or for another machine."""

    code = "package.unusable"


class DependencyConflict(PackageError):
    """Two packages want versions of a third that exclude each other, depend on each other in a circle, or it is nowhere."""

    code = "package.dependencies"


class BuildFailed(PackageError):
    """A package could not be made from its recipe. The hint holds the last words of the tool that failed."""

    code = "package.build"


class SandboxError(FireboxError):
    """Our own sandbox failed, not the program in it. step: what was being done, in words."""

    code = "sandbox"

    def __init__(self, step: str, errno: int | None = None, *, detail: str = "", hint: str = "") -> None:
        where = f" (errno {errno})" if errno else ""
        super().__init__(f"the sandbox failed at {step!r}{where}{': ' + detail if detail else ''}", hint=hint)
        self.step = step
        self.errno = errno
