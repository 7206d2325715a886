"""The launcher as a child process of the server, restarted when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from firebox.sandbox.instance.sandbox import KILL_PATIENCE_S, Sandbox, Template
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.launcher.launcher_start import FIRST, StartedLauncher, start_launcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.plan.plans import Plans
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, Phase
from firebox.sandbox.spec import SandboxFailure, SandboxSpec

_STREAMS = 3
_DEFER_S = 0.003
_SEND_AGAIN_S = 0.005
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


class _PendingSandbox:
    """A sandbox that is being created. link: our end of its link, which the sandbox owns once `made` is done."""

    def __init__(self, spec: SandboxSpec, link: socket.socket) -> None:
        self.spec = spec
        self.link = link
        self.template: Template | None = None
        self.made: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self.failed: messages.Failed | None = None


class LauncherProcess:
    """Starts a launcher, creates sandboxes in it, and restarts it when it dies.

    hooks: name -> content of the files in `spec.HOOKS_FOLDER`. run_as: (uid, gid) of another user, only for root. started: a
    configured process to use first; its first sandbox may have been requested.
    """

    def __init__(
        self,
        *,
        uid_base: int = 210_000,
        hooks: Mapping[str, str] | None = None,
        run_as: tuple[int, int] | None = None,
        started: StartedLauncher | None = None,
    ) -> None:
        self._hooks = dict(hooks or {})
        self._uid_base = uid_base
        self._run_as = run_as
        self._started = started
        self._process: StartedLauncher | None = None
        self._link: socket.socket | None = None
        self._plans: Plans | None = None
        self._configured: asyncio.Future[None] | None = None
        self._bring_up_task: asyncio.Task[None] | None = None
        self._first: _PendingSandbox | None = None
        """The sandbox that was requested at the start of the launcher, until it is used."""
        self._pending: dict[int, _PendingSandbox] = {}
        self._backlog: deque[tuple[bytes, socket.socket | None, Template | None]] = deque()
        """Messages that do not fit into the socket yet."""
        self._prepared_for: dict[int, set[int]] = {}
        """Number of an unfinished preparation -> numbers of pending sandboxes that need it."""
        self._alive: dict[int, asyncio.Event] = {}
        self._deferred: list[Callable[[], None]] = []
        self._next_number = FIRST
        self._starting = asyncio.Lock()
        self._is_ready = False
        """Whether the running launcher has passed its smoke test."""
        self._closed = False
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        """Where sandboxes discard output beyond the limit."""
        self.watcher = Watcher()
        self.starts = 0
        """Number of starts; more than one means restarts."""
        self.layers: tuple[str, ...] = ()
        self.reasons: tuple[str, ...] = ()
        """Why a better cgroup version is not used."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> int:
        """Number of sandboxes, idle or running."""
        return len(self._alive)

    async def start(self) -> None:
        """Start the launcher unless it runs, and wait for its smoke test. Raises: SandboxFailure with the step that failed."""
        async with self._starting:
            if self._link is None and self._closed:
                raise SandboxFailure("start", detail="the launcher is closed")
            try:
                if self._link is None:
                    self._spawn()
                assert self._bring_up_task is not None  # noqa: S101 - set by _spawn
                # Other callers wait for the same task when this one is cancelled.
                await asyncio.shield(self._bring_up_task)
            except SandboxFailure:
                self._forget_process("the launcher could not create a sandbox")
                raise
            except OSError as error:
                self._forget_process("the launcher ended at once")
                raise SandboxFailure("launcher", error.errno or 0, f"it could not be started: {error}") from None

    def _spawn(self) -> None:
        started, self._started = self._started, None
        if started is None:
            started = start_launcher(run_as=self._run_as)
        self._process = started
        self._link = started.link
        self.starts += 1
        self._configured = None
        self._prepared_for.clear()
        self._bring_up_task = asyncio.create_task(self._bring_up(started))
        self._bring_up_task.add_done_callback(_retrieve_exception)

    async def _bring_up(self, started: StartedLauncher) -> None:
        """Configure a launcher and run its smoke test. Raises: SandboxFailure, OSError."""
        if started.plans is None:
            # In a thread: this first removes the cgroups of dead launchers, which may take a while.
            await asyncio.to_thread(started.configure, uid_base=self._uid_base, hooks=self._hooks)
        assert started.plans is not None  # noqa: S101 - it is configured
        self._plans = started.plans
        started.link.setblocking(False)
        loop = asyncio.get_running_loop()
        configured = self._configured = loop.create_future()
        loop.add_reader(started.link.fileno(), self._receive)
        if started.first is not None:
            self._first = self._expect(FIRST, *started.first)
            self._prepared_for = {number: {FIRST} for number in started.prepared}
            started.first = None
            self._next_number = FIRST + 1
        await configured
        await self._smoke_test(started.plans, is_smoke_test=started.first_is_smoke_test)
        self.layers = started.plans.layers()
        self._is_ready = True
        self.reasons = tuple(started.plans.cgroup_reasons)

    async def _smoke_test(self, plans: Plans, *, is_smoke_test: bool) -> None:
        """Create a sandbox, dropping one optional layer after the other. A sandbox requested at the start serves as well.

        is_smoke_test: that sandbox was requested only for this. Raises: SandboxFailure when a required layer fails.
        """
        pending = self._first or self._request(SandboxSpec())
        if is_smoke_test:
            self._first = None
        while True:
            try:
                sandbox = await asyncio.shield(pending.made)
            except SandboxFailure:
                given_up = pending.failed is not None and plans.give_up_layer(pending.failed, pending.spec)
                # Only a default sandbox that fails is proof that the host cannot create any.
                if not given_up and pending is not self._first:
                    raise
                self._first = None
                pending = self._request(SandboxSpec())
            else:
                if pending is not self._first:
                    sandbox.close()
                    await self.ended(sandbox.number)
                return

    async def make(self, spec: SandboxSpec, template: Template | None = None) -> Sandbox:
        """Create a sandbox. template: to restore its prestarted program from. Raises: SandboxFailure."""
        if not self._is_ready:
            await self.start()
        if self._first is not None and self._first.spec == spec:
            made = self._first.made
            self._first = None
        else:
            made = self._request(spec, template).made
        try:
            return await made
        except asyncio.CancelledError:
            made.add_done_callback(_close_result)
            raise

    def _request(self, spec: SandboxSpec, template: Template | None = None) -> _PendingSandbox:
        """Request a sandbox from the launcher. Raises: SandboxFailure."""
        plans = self._plans
        assert plans is not None  # noqa: S101 - it was started
        for preparation in plans.prepare(spec):
            self._prepared_for[preparation.number] = set()
            self._send(preparation.message())
        if self._link is None:
            raise _lost_launcher("the launcher died")
        number = self._next_number
        message = plans.make(number, spec)
        self._next_number += 1
        for needed in plans.needed(spec):
            if needed in self._prepared_for:
                self._prepared_for[needed].add(number)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _too_many_files(error.errno or 0) from None
        pending = self._expect(number, spec, ours)
        pending.template = template
        self._send(message, theirs, template)
        return pending

    def _expect(self, number: int, spec: SandboxSpec, link: socket.socket) -> _PendingSandbox:
        """Register a pending sandbox, which will report on a link."""
        link.setblocking(False)
        pending = _PendingSandbox(spec, link)
        self._pending[number] = pending
        self._alive[number] = asyncio.Event()
        self.watcher.add(link.fileno(), partial(self._receive_pending, number))
        return pending

    def describe(self, spec: SandboxSpec) -> list[str]:
        """Describe the steps that create a sandbox; one of this spec has been created. Raises: SandboxFailure."""
        assert self._plans is not None  # noqa: S101 - it was started
        return list(self._plans.plan(spec).describe())

    def owns(self, number: int) -> bool:
        """Return whether a sandbox belongs to the running launcher; those of a dead launcher are dying."""
        return number in self._alive

    def kill(self, number: int) -> None:
        """Have every process of a sandbox killed; its meters can still be read. Returns at once."""
        if number in self._alive:
            self._send(messages.pack(messages.Kill(Kind.KILL, number)))

    def end(self, number: int) -> None:
        """Have a sandbox killed and everything of it removed. Returns at once."""
        if number in self._alive:
            self._send(messages.pack(messages.End(Kind.END, number)))

    def defer(self, work: Callable[[], None]) -> None:
        """Call back when requests under way have been served."""
        if self._closed:
            work()
            return
        if not self._deferred:
            asyncio.get_running_loop().call_later(_DEFER_S, self._run_deferred)
        self._deferred.append(work)

    def _run_deferred(self) -> None:
        waiting, self._deferred = self._deferred, []
        for work in waiting:
            work()

    def forget(self, layer: str) -> None:
        """Have the launcher unmount an image whose package is being removed. Returns at once."""
        message = self._plans.forget_layer(layer) if self._plans is not None else None
        if message is not None:
            self._send(message)

    async def ended(self, number: int) -> None:
        """Wait until a sandbox is completely gone."""
        if number in self._alive:
            await self._alive[number].wait()

    async def close(self) -> None:
        """End the launcher with every sandbox, and wait until it is gone."""
        self._closed = True
        self._run_deferred()
        if self._bring_up_task is not None and self._configured is None:
            await asyncio.wait([self._bring_up_task])  # a thread uses the link
        if self._link is not None:
            self._link.shutdown(socket.SHUT_WR)
        if self._process is not None and not self._process.has_ended():
            await _wait_for_end(self._process)
            self._process.kill()
        self._forget_process("the launcher was closed")
        self.watcher.close()
        if self._process is not None:
            self._process.close()
        if self.null >= 0:
            os.close(self.null)
            self.null = -1

    def _send(self, message: bytes, link: socket.socket | None = None, template: Template | None = None) -> None:
        """Send a message with a sandbox's template and the other end of its link, which is then closed here."""
        self._backlog.append((message, link, template))
        if len(self._backlog) == 1:
            self._send_backlog()

    def _send_backlog(self) -> None:
        """Send the backlog in order, as far as the socket has room."""
        while self._backlog:
            message, link, template = self._backlog[0]
            if self._link is not None:
                descriptors = [link.fileno()] if link is not None else []
                if template is not None:
                    descriptors.append(template.descriptor)
                try:
                    messages.send(self._link, message, descriptors)
                except BlockingIOError:
                    # The socket's buffer holds dozens of messages.
                    asyncio.get_running_loop().call_later(_SEND_AGAIN_S, self._send_backlog)
                    return
                except OSError as error:
                    # If only the descriptors cannot be sent, just this sandbox fails, because its link is closed.
                    if link is None or error.errno not in _NO_DESCRIPTORS:
                        self._forget_process("the launcher died")
            if link is not None:
                link.close()
            if self._backlog:
                self._backlog.popleft()

    def _receive(self) -> None:
        """Handle the launcher's messages."""
        while self._link is not None:
            try:
                data, descriptors = messages.receive(self._link)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                os.close(descriptor)
            if not data:
                self._forget_process("the launcher died")
                return
            self._handle(data)

    def _handle(self, data: bytes) -> None:
        assert self._plans is not None and self._configured is not None  # noqa: S101, PT018 - set before there is a reader
        kind = messages.kind_of(data)
        if kind == Kind.CONFIGURED:
            self._plans.many_uids = messages.unpack(messages.Configured, data).uid_count > 1
            self._configured.set_result(None)
        elif kind == Kind.PREPARED:
            self._prepared_for.pop(messages.unpack(messages.Prepared, data).number, None)
        elif kind == Kind.ENDED:
            event = self._alive.pop(messages.unpack(messages.Ended, data).number, None)
            if event is not None:
                event.set()
        elif kind == Kind.FAILED:
            failed, call = messages.unpack_with_text(messages.Failed, data)
            if failed.phase == Phase.PREPARE:
                failure = self._plans.failure(failed, call, self._plans.forget_preparation(failed.number))
                for number in self._prepared_for.pop(failed.number, ()):
                    self._fail(number, failure)
            elif not self._configured.done():
                self._configured.set_exception(self._plans.failure(failed, call))

    def _receive_pending(self, number: int) -> None:
        """Handle the first message of a sandbox: it is ready, or a step of its creation failed."""
        if self._prepared_for:
            self._receive()  # first the preparations that it depends on
        pending = self._pending.get(number)
        if pending is None:
            return
        try:
            data, descriptors = messages.receive(pending.link)
        except BlockingIOError:
            return
        try:
            self._handle_pending(number, pending, data, descriptors)
        except ValueError as error:
            self._fail(number, SandboxFailure("message", detail=str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _handle_pending(self, number: int, pending: _PendingSandbox, data: bytes, descriptors: list[int]) -> None:
        """Handle the first message of a sandbox. Descriptors that it keeps are removed from the list. Raises: ValueError."""
        plans = self._plans
        assert plans is not None  # noqa: S101 - set before any sandbox is requested
        meters = plans.cgroups.meter_names
        kind = messages.kind_of(data) if data else 0
        if kind == Kind.READY and len(descriptors) == _STREAMS + len(meters):
            ready = messages.unpack(messages.Ready, data)
            del self._pending[number]
            self.watcher.remove(pending.link.fileno())
            spec = pending.spec
            meter = Meter(dict(zip(meters, descriptors[_STREAMS:], strict=True)), spec.memory_bytes, spec.processes)
            sandbox = Sandbox(self, number, ready.pid, pending.link, descriptors[:_STREAMS], meter)
            sandbox.template = pending.template
            descriptors.clear()
            if pending.made.done():
                sandbox.close()
            else:
                pending.made.set_result(sandbox)
        elif kind == Kind.READY:
            self._fail(number, _too_many_files(errno.EMFILE))
        elif kind == Kind.FAILED:
            pending.failed, call = messages.unpack_with_text(messages.Failed, data)
            steps = plans.plan(pending.spec).steps_of(pending.failed.phase)
            self._fail(number, plans.failure(pending.failed, call, steps))
        else:
            self._fail(number, SandboxFailure("make", detail="the sandbox ended while it was created"))

    def _fail(self, number: int, failure: SandboxFailure) -> None:
        """Drop a pending sandbox."""
        pending = self._pending.pop(number, None)
        if pending is None:
            return
        self.watcher.remove(pending.link.fileno())
        pending.link.close()
        self.end(number)
        if not pending.made.done():
            pending.made.set_exception(failure)
            _retrieve_exception(pending.made)

    def _forget_process(self, why: str) -> None:
        """Forget a launcher that is gone. Its sandboxes notice by themselves: their links end."""
        self._is_ready = False
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
        if self._process is not None and not self._closed:
            self._process.kill()
            self._process.close()
        while self._backlog:
            _message, link, _template = self._backlog.popleft()
            if link is not None:
                link.close()
        failure = _lost_launcher(why)
        if self._configured is not None and not self._configured.done():
            self._configured.set_exception(failure)
            _retrieve_exception(self._configured)
        for number in list(self._pending):
            self._fail(number, failure)
        self._first, first = None, self._first
        if first is not None:
            _close_result(first.made)
        for event in self._alive.values():
            event.set()
        self._alive.clear()
        self._plans = None


async def _wait_for_end(process: StartedLauncher) -> None:
    """Wait until the process has ended, for at most `KILL_PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process.pidfd, ended.set)
    try:
        # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with what it waits for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_PATIENCE_S):
                await ended.wait()
    finally:
        loop.remove_reader(process.pidfd)


def _close_result(made: asyncio.Future[Sandbox]) -> None:
    """Close a sandbox whose requester has left."""
    if not made.cancelled() and made.exception() is None:
        made.result().close()


def _retrieve_exception(done: asyncio.Future[Any]) -> None:
    """Mark an exception as retrieved, so that asyncio does not log it."""
    if not done.cancelled():
        done.exception()


def _lost_launcher(why: str) -> SandboxFailure:
    return SandboxFailure("launcher", detail=why, hint="it is restarted; see the log for its last messages")


def _too_many_files(number: int) -> SandboxFailure:
    return SandboxFailure("descriptors", number, "too many open files", hint="raise `ulimit -n` or lower `slots`")
