"""The launcher as the server's child: started, watched, started again when it dies."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from firebox.sandbox.instance.sandbox import KILL_PATIENCE_S, Sandbox
from firebox.sandbox.instance.watcher import Watcher
from firebox.sandbox.launcher.launcher_start import FIRST, StartedLauncher, start_launcher
from firebox.sandbox.plan.cgroups import Meter
from firebox.sandbox.plan.plans import Plans
from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import Kind, Phase
from firebox.sandbox.spec import SandboxFailure, SandboxSpec
from firebox.sandbox.template import Template

_STREAMS = 3
_LATER_S = 0.003
_TELL_AGAIN_S = 0.005
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


class _Making:
    """A sandbox that is being made. link: our end of its link, ours to close until `made` has a sandbox."""

    def __init__(self, specification: SandboxSpec, link: socket.socket) -> None:
        self.specification = specification
        self.link = link
        self.template: Template | None = None
        self.made: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self.failed: messages.Failed | None = None


class LauncherProcess:
    """The launcher as a child of the server; started again when it dies.

    hooks: name -> text of what sandboxes show below `spec.HOOKS_FOLDER`. run_as: (uid, gid) to start it as another user; only
    root can. started: a process that has its settings already, and perhaps makes its first sandbox, to be used instead of a
    first one.
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
        self._meter_names: tuple[str, ...] = ()
        self._configured: asyncio.Future[None] | None = None
        self._proven: asyncio.Task[None] | None = None
        self._first: _Making | None = None
        """The sandbox that was asked for when the launcher was started, until it is taken."""
        self._making: dict[int, _Making] = {}
        self._backlog: deque[tuple[bytes, socket.socket | None, Template | None]] = deque()
        """What the launcher has not been told yet: it is far behind."""
        self._prepared_for: dict[int, set[int]] = {}
        """Number of a preparation -> sandboxes that were asked for since then and need it."""
        self._alive: dict[int, asyncio.Event] = {}
        self._work_for_later: list[Callable[[], None]] = []
        self._next_number = FIRST
        self._starting = asyncio.Lock()
        self._is_proven = False
        """Whether the launcher that runs now has made a sandbox."""
        self._closed = False
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        """Where sandboxes let output go that nobody will see."""
        self.watcher = Watcher()
        self.starts = 0
        """How often a launcher was started; one is normal."""
        self.layers: tuple[str, ...] = ()
        self.cgroups = ""
        """Their version: "v2", "v1" or "none"."""
        self.reasons: tuple[str, ...] = ()
        """Why better kinds of cgroups are not used."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def alive(self) -> int:
        """Sandboxes that exist, ready or running."""
        return len(self._alive)

    async def start(self) -> None:
        """Start the launcher unless it runs, and wait until it has proved that it can make a sandbox.

        Raises: SandboxFailure with the step that is not possible here.
        """
        async with self._starting:
            if self._link is None and self._closed:
                raise SandboxFailure("start", detail="the launcher is closed")
            try:
                if self._link is None:
                    self._spawn()
                assert self._proven is not None  # noqa: S101 - set by _spawn
                # Others wait for the same proof when this caller leaves.
                await asyncio.shield(self._proven)
            except SandboxFailure:
                self._lost("the launcher could not make a sandbox")
                raise
            except OSError as error:
                self._lost("the launcher ended at once")
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
        self._proven = asyncio.create_task(self._bring_up(started))
        self._proven.add_done_callback(_look_at)

    async def _bring_up(self, started: StartedLauncher) -> None:
        """Give a launcher its settings and wait until it has made a sandbox. Raises: SandboxFailure, OSError."""
        if started.plans is None:
            # cgroups that a dead launcher left are removed first, which may take a while.
            await asyncio.to_thread(started.configure, uid_base=self._uid_base, hooks=self._hooks)
        assert started.plans is not None  # noqa: S101 - it is configured
        self._plans = started.plans
        self._meter_names = started.plans.cgroups.meter_names
        started.link.setblocking(False)
        loop = asyncio.get_running_loop()
        configured = self._configured = loop.create_future()
        loop.add_reader(started.link.fileno(), self._hear)
        if started.first is not None:
            self._first = self._expect(FIRST, *started.first)
            self._prepared_for = {number: {FIRST} for number in started.prepared}
            started.first = None
            self._next_number = FIRST + 1
        await configured
        await self._prove(started.plans, is_proof=started.first_is_proof)
        self.layers = started.plans.layers()
        self._is_proven = True
        self.cgroups = started.plans.cgroups.kind
        self.reasons = tuple(started.plans.cgroup_reasons)

    async def _prove(self, plans: Plans, *, is_proof: bool) -> None:
        """Make a sandbox, giving up one optional layer at a time. The first that was asked for is as good a proof as another.

        is_proof: it was asked for to be that and nothing else. Raises: SandboxFailure when a layer without a substitute fails.
        """
        making = self._first or self._ask(SandboxSpec())
        if is_proof:
            self._first = None
        while True:
            try:
                sandbox = await asyncio.shield(making.made)
            except SandboxFailure:
                given_up = making.failed is not None and plans.give_up_layer(making.failed, making.specification)
                # One of a kind that cannot be made says nothing about the host; a plain one does.
                if not given_up and making is not self._first:
                    raise
                self._first = None
                making = self._ask(SandboxSpec())
            else:
                if making is not self._first:
                    sandbox.close()
                    await self.ended(sandbox.number)
                return

    async def make(self, specification: SandboxSpec, template: Template | None = None) -> Sandbox:
        """Make a sandbox. template: from which its program is restored ahead. Raises: SandboxFailure."""
        if not self._is_proven:
            await self.start()
        if self._first is not None and self._first.specification == specification:
            made = self._first.made
            self._first = None
        else:
            made = self._ask(specification, template).made
        try:
            return await made
        except asyncio.CancelledError:
            made.add_done_callback(_throw_away)
            raise

    def _ask(self, specification: SandboxSpec, template: Template | None = None) -> _Making:
        """Have the launcher make a sandbox. Raises: SandboxFailure."""
        plans = self._plans
        assert plans is not None  # noqa: S101 - it was started
        for preparation in plans.prepare(specification):
            self._prepared_for[preparation.number] = set()
            self._tell(preparation.message())
        if self._link is None:
            raise _lost_launcher("the launcher died")
        number = self._next_number
        message = plans.make(number, specification)
        self._next_number += 1
        for needed in plans.needed(specification):
            if needed in self._prepared_for:
                self._prepared_for[needed].add(number)
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _too_many_files(error.errno or 0) from None
        making = self._expect(number, specification, ours)
        making.template = template
        self._tell(message, theirs, template)
        return making

    def _expect(self, number: int, specification: SandboxSpec, link: socket.socket) -> _Making:
        """Note that a sandbox will report on a link."""
        link.setblocking(False)
        making = _Making(specification, link)
        self._making[number] = making
        self._alive[number] = asyncio.Event()
        self.watcher.add(link.fileno(), partial(self._hear_made, number))
        return making

    def describe(self, specification: SandboxSpec) -> list[str]:
        """Return the steps in which a sandbox of this kind is made, in words; one has been made. Raises: SandboxFailure."""
        assert self._plans is not None  # noqa: S101 - it was started
        return list(self._plans.plan(specification).describe())

    def owns(self, number: int) -> bool:
        """Tell whether a sandbox is one of the launcher that runs now; those of a dead one are dying."""
        return number in self._alive

    def kill(self, number: int) -> None:
        """Have every process of a sandbox killed; its meters can still be read. Returns at once."""
        if number in self._alive:
            self._tell(messages.pack(messages.Kill(Kind.KILL, number)))

    def end(self, number: int) -> None:
        """Have a sandbox killed and everything of it removed. Returns at once."""
        if number in self._alive:
            self._tell(messages.pack(messages.End(Kind.END, number)))

    def later(self, work: Callable[[], None]) -> None:
        """Do what nobody waits for, once those who wait have been served."""
        if self._closed:
            work()
            return
        if not self._work_for_later:
            asyncio.get_running_loop().call_later(_LATER_S, self._catch_up)
        self._work_for_later.append(work)

    def _catch_up(self) -> None:
        waiting, self._work_for_later = self._work_for_later, []
        for work in waiting:
            work()

    def forget(self, layer: str) -> None:
        """Have the launcher let go of an image whose package is going away. Returns at once."""
        message = self._plans.forget_layer(layer) if self._plans is not None else None
        if message is not None:
            self._tell(message)

    async def ended(self, number: int) -> None:
        """Wait until nothing of a sandbox is left."""
        if number in self._alive:
            await self._alive[number].wait()

    async def close(self) -> None:
        """End the launcher and with it every sandbox; wait until it is gone."""
        self._closed = True
        self._catch_up()
        if self._proven is not None and self._configured is None:
            await asyncio.wait([self._proven])  # a thread uses the link
        if self._link is not None:
            self._link.shutdown(socket.SHUT_WR)
        if self._process is not None and not self._process.has_ended():
            await _end_of(self._process)
            self._process.kill()
        self._lost("the launcher was closed")
        self.watcher.close()
        if self._process is not None:
            self._process.close()
        if self.null >= 0:
            os.close(self.null)
            self.null = -1

    def _tell(self, message: bytes, link: socket.socket | None = None, template: Template | None = None) -> None:
        """Send a message, with the other end of a sandbox's link, which is closed then, and its template."""
        self._backlog.append((message, link, template))
        if len(self._backlog) == 1:
            self._tell_all()

    def _tell_all(self) -> None:
        """Send what has not been sent yet, in order."""
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
                    asyncio.get_running_loop().call_later(_TELL_AGAIN_S, self._tell_all)
                    return
                except OSError as error:
                    # Where only descriptors cannot be sent, the sandbox fails because its link ends here.
                    if link is None or error.errno not in _NO_DESCRIPTORS:
                        self._lost("the launcher died")
            if link is not None:
                link.close()
            if self._backlog:
                self._backlog.popleft()

    def _hear(self) -> None:
        """Take what the launcher says."""
        while self._link is not None:
            try:
                data, descriptors = messages.receive(self._link)
            except BlockingIOError:
                return
            for descriptor in descriptors:
                os.close(descriptor)
            if not data:
                self._lost("the launcher died")
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
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
                self._fail_prepared(failed, call)
            elif not self._configured.done():
                self._configured.set_exception(self._plans.failure(failed, call))

    def _fail_prepared(self, failed: messages.Failed, call: str) -> None:
        """Fail every sandbox that needs what could not be prepared."""
        assert self._plans is not None  # noqa: S101 - as in _take
        failure = self._plans.failure(failed, call, self._plans.forget_preparation(failed.number))
        for number in self._prepared_for.pop(failed.number, ()):
            self._fail(number, failure)

    def _hear_made(self, number: int) -> None:
        """Take the first word of a sandbox, which has taken every step of its making or failed."""
        if self._prepared_for:
            self._hear()  # what the launcher prepared before comes first
        making = self._making.get(number)
        if making is None:
            return
        try:
            data, descriptors = messages.receive(making.link)
        except BlockingIOError:
            return
        try:
            self._take_made(number, making, data, descriptors)
        except ValueError as error:
            self._fail(number, SandboxFailure("message", detail=str(error)))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _take_made(self, number: int, making: _Making, data: bytes, descriptors: list[int]) -> None:
        """Act on the first word of a sandbox; takes what it keeps out of `descriptors`. Raises: ValueError."""
        meters = self._meter_names
        kind = messages.kind_of(data) if data else 0
        if kind == Kind.READY and len(descriptors) == _STREAMS + len(meters):
            ready = messages.unpack(messages.Ready, data)
            del self._making[number]
            self.watcher.remove(making.link.fileno())
            wanted = making.specification
            meter = Meter(dict(zip(meters, descriptors[_STREAMS:], strict=True)), wanted.memory_bytes, wanted.processes)
            sandbox = Sandbox(self, number, ready.pid, making.link, descriptors[:_STREAMS], meter)
            sandbox.template = making.template
            descriptors.clear()
            if making.made.done():
                sandbox.close()
            else:
                making.made.set_result(sandbox)
        elif kind == Kind.READY:
            self._fail(number, _too_many_files(errno.EMFILE))
        elif kind == Kind.FAILED:
            making.failed, call = messages.unpack_with_text(messages.Failed, data)
            plans = self._plans
            assert plans is not None  # noqa: S101 - set before anything is made
            steps = plans.steps_of(making.failed, making.specification)
            self._fail(number, plans.failure(making.failed, call, steps))
        else:
            self._fail(number, SandboxFailure("make", detail="the sandbox ended while it was made"))

    def _fail(self, number: int, failure: SandboxFailure) -> None:
        """Give up a sandbox that was being made."""
        making = self._making.pop(number, None)
        if making is None:
            return
        self.watcher.remove(making.link.fileno())
        making.link.close()
        self.end(number)
        if not making.made.done():
            making.made.set_exception(failure)
            _look_at(making.made)

    def _lost(self, why: str) -> None:
        """Forget a launcher that is gone. Sandboxes notice by themselves: their links end."""
        self._is_proven = False
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
            _look_at(self._configured)
        for number in list(self._making):
            self._fail(number, failure)
        self._first, first = None, self._first
        if first is not None:
            _throw_away(first.made)
        for event in self._alive.values():
            event.set()
        self._alive.clear()
        self._plans = None


async def _end_of(process: StartedLauncher) -> None:
    """Wait until the process has ended, if it does so within `KILL_PATIENCE_S`."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def note() -> None:
        loop.remove_reader(process.pidfd)
        ended.set_result(None)

    loop.add_reader(process.pidfd, note)
    try:
        await asyncio.wait([ended], timeout=KILL_PATIENCE_S)
    finally:
        loop.remove_reader(process.pidfd)


def _throw_away(made: asyncio.Future[Sandbox]) -> None:
    """Close a sandbox that nobody waits for any more."""
    if not made.cancelled() and made.exception() is None:
        made.result().close()


def _look_at(done: asyncio.Future[Any]) -> None:
    """Have asyncio not complain about an exception that perhaps nobody waits for."""
    if not done.cancelled():
        done.exception()


def _lost_launcher(why: str) -> SandboxFailure:
    return SandboxFailure("launcher", detail=why, hint="it is started again; see the log for its last words")


def _too_many_files(number: int) -> SandboxFailure:
    return SandboxFailure(
        "descriptors", number, "this process has too many open files", hint="raise `ulimit -n` or lower `slots`"
    )
