"""Shared snippets: programs that succeeded, stored with their output."""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from firebox.domain.errors import Forbidden, InvalidRequest, NotFound, SandboxError, ShuttingDown
from firebox.domain.limits import LimitRequest
from firebox.domain.model import File, Job, Result, StageResult, Verdict
from firebox.service.callers import Caller
from firebox.service.validation import encode_text
from firebox.settings.settings import Settings
from firebox.storage.records import Snippet
from firebox.storage.stores import Stores

DEFAULT_LANGUAGE = "go"
RETRY_AFTER_STOP_S = 5.0

AdminCheck = Callable[[int], Awaitable[bool]]
"""Returns whether a user is an admin. Raises: PartUnavailable if that is unknown."""

_SYNTAX_ERROR = re.compile(r"syntax error:[^\r\n]*")


class Outcome(Struct, frozen=True):
    """Outcome of a program. error: "" if it succeeded without output on stderr; complaint: all of stderr."""

    output: str
    error: str
    complaint: str


class Snippets:
    """Runs, shares, returns and deletes snippets. execute: runs a job to its end."""

    def __init__(self, stores: Stores, settings: Settings, execute: Callable[[Job, Caller], Awaitable[Result]]) -> None:
        self._stores = stores
        self._settings = settings
        self._execute = execute

    async def run(self, code: str, *, language: str, caller: Caller) -> Outcome:
        """Run a program to its end. language: "" for Go; otherwise a name or alias, optionally with "@" and a version range.

        Raises: as `Service.execute`; ShuttingDown and SandboxError when Firebox ended the program.
        """
        return _outcome(await self._execute(self._job(code, language), caller))

    async def share(self, code: str, *, language: str, caller: Caller) -> int:
        """Run a program, and store it unless it fails. Return its number.

        Raises: InvalidRequest with the program's errors as its message; PartUnavailable; and as `run`.
        """
        if "\0" in code:
            raise InvalidRequest("a NUL character cannot be stored", where="code")
        outcome = await self.run(code, language=language, caller=caller)
        if outcome.error:
            raise InvalidRequest(outcome.complaint)
        snippet = await self._stores.snippets.add(
            code=code, language=language or DEFAULT_LANGUAGE, output=outcome.output, error=outcome.error
        )
        return snippet.id

    async def get(self, snippet_id: int) -> Snippet:
        """Return a shared program from the cache, or else from the database, and cache it. Raises: NotFound, PartUnavailable."""
        key, ttl_s = _key(snippet_id), self._settings.cache_s
        cached = _decode(await self._stores.cache.get(key)) if ttl_s else None
        if cached is not None:
            return cached
        snippet = await self._stores.snippets.get(snippet_id)
        if ttl_s:
            await self._stores.cache.set(key, msgspec.json.encode(snippet), ttl_s)
            # A snippet deleted between reading and caching would reappear in the cache.
            try:
                await self._stores.snippets.get(snippet_id)
            except NotFound:
                await self._stores.cache.delete(key)
                raise
        return snippet

    async def delete(self, snippet_id: int, *, user_id: int, caller: Caller, is_admin: AdminCheck) -> None:
        """Delete a shared program on behalf of a user, who must be an admin.

        user_id comes from the request and proves nothing: an authenticated client may only send its own, unless it is an admin.
        Without required logins, an anonymous client is believed.
        Raises: Forbidden, NotFound; PartUnavailable, and then nothing is deleted.
        """
        known = caller.user_id is not None or caller.is_admin or self._settings.require_login
        if known and not caller.is_admin and caller.user_id != user_id:
            raise Forbidden("user_id is not yours")
        if not await is_admin(user_id):
            raise Forbidden("only admins may delete shared programs")
        try:
            await self._stores.snippets.remove(snippet_id)
        finally:
            # Even if the client has disconnected, or the row was already deleted.
            await self._stores.cache.delete(_key(snippet_id))

    def _job(self, code: str, language: str) -> Job:
        name, _, version = language.partition("@")
        name, version = name or DEFAULT_LANGUAGE, version or "*"
        timeout_ms = self._settings.runner_timeout_ms
        return Job(
            language=name,
            version=version,
            files=(File("", encode_text(code, where="code")),),
            run_limits=LimitRequest(wall_ms=timeout_ms, cpu_ms=timeout_ms),
            clamp_limits=True,
        )


def _outcome(result: Result) -> Outcome:
    """Convert a result. If compiling failed, the compiler's messages are the program's errors."""
    if result.verdict is Verdict.CANCELLED:
        raise ShuttingDown("the run was cancelled: the server is stopping", retry_after_s=RETRY_AFTER_STOP_S)
    stage = result.run or result.compile
    if stage is None or result.verdict is Verdict.INTERNAL:
        raise SandboxError("run", detail=result.reason)
    output = stage.stdout.decode(errors="replace") if stage is result.run else ""
    complaint = _complaint(stage, result.runtime.language)
    found = _SYNTAX_ERROR.search(complaint)
    return Outcome(output, found[0] if found else complaint, complaint)


def _complaint(stage: StageResult, language: str) -> str:
    """Return stderr, or else why the program failed silently; "" on success."""
    stderr = stage.stderr.decode(errors="replace")
    if language == DEFAULT_LANGUAGE and stage.stage == "run":
        stderr += _last_line_of_go_run(stage)
    if stderr or stage.verdict is Verdict.OK:
        return stderr
    # Some compilers print errors on stdout.
    return (stage.stdout.decode(errors="replace") if stage.stage == "compile" else "") or stage.reason or stage.verdict.value


def _last_line_of_go_run(stage: StageResult) -> str:
    """Return what `go run` prints on stderr after a failed program, as Runner uses it to run programs.

    "" after a limit was exceeded: our reason is more precise. Source: Go, os.ProcessState.String.
    """
    if stage.verdict is Verdict.RUNTIME_ERROR and stage.exit_code:
        return f"exit status {stage.exit_code}\n"
    name = stage.signal or ""
    if stage.verdict is Verdict.SIGNAL and name in signal.Signals.__members__:
        words = signal.strsignal(signal.Signals[name]) or name
        return f"signal: {words[:1].lower()}{words[1:]}\n"
    return ""


def _key(snippet_id: int) -> str:
    return f"snippet:{snippet_id}"


def _decode(cached: bytes | None) -> Snippet | None:
    """Parse a cached snippet; None if another version of Firebox wrote it in another format."""
    try:
        return None if cached is None else msgspec.json.decode(cached, type=Snippet)
    except msgspec.MsgspecError:
        return None
