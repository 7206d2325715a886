"""The launcher as the server's child: started, watched, started again when it dies."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from firebox.sandbox.handle import KILL_PATIENCE_S, Sandbox
from firebox.sandbox.launcher_start import FIRST, StartedLauncher, start_launcher
from firebox.sandbox.spec import SandboxFailure, SandboxSpec, decode, receive, send, spec_to_message

_STREAMS_AND_LINK = 4
_LATER_S = 0.003


class LauncherProcess:
    """The launcher as a child of the server; started again when it dies.

    hooks: name -> text of what sandboxes show below `ahead.FOLDER`. run_as: (uid, gid) to start it as another user; only root
    can. python: the interpreter that runs it. source: the folder that holds the package; both must be readable by that user.
    started: a process that has its settings already, and perhaps makes its first sandbox, to be used instead of a first one.
    """

    def __init__(
        self,
        *,
        uid_base: int = 210_000,
        hooks: Mapping[str, str] | None = None,
        run_as: tuple[int, int] | None = None,
        python: str | None = None,
        source: str = "",
        started: StartedLauncher | None = None,
    ) -> None:
        self._hooks = dict(hooks or {})
        self._uid_base = uid_base
        self._run_as = run_as
        self._python = python
        self._source = source
        self._started = started
        self._process: StartedLauncher | None = None
        self._link: socket.socket | None = None
        self._proven: asyncio.Future[dict[str, Any]] | None = None
        self._first: tuple[SandboxSpec, asyncio.Future[Sandbox]] | None = None
        """The sandbox that whoever started the launcher has asked for, until it is taken."""
        self._making: dict[int, asyncio.Future[Sandbox]] = {}
        self._alive: dict[int, asyncio.Event] = {}
        self._work_for_later: list[Callable[[], None]] = []
        self._next_number = FIRST
        self._starting = asyncio.Lock()
        self._closed = False
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        """Where sandboxes let output go that nobody will see."""
        self.starts = 0
        """How often a launcher was started; one is normal."""
        self.layers: tuple[str, ...] = ()
        self.cgroups = ""
        self.reasons: tuple[str, ...] = ()
        """Why better kinds of control groups are not used."""

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
                # Whoever comes next waits for the same proof when this one leaves.
                proven = await asyncio.shield(self._proven)
            except SandboxFailure:
                self._lost("the launcher could not make a sandbox")
                raise
            except OSError as error:
                self._lost("the launcher ended at once")
                raise SandboxFailure("launcher", error.errno or 0, f"it could not be started: {error}") from None
            self.layers = tuple(proven["proven"])
            self.cgroups = proven["cgroups"]
            self.reasons = tuple(proven["reasons"])

    def _spawn(self) -> None:
        started, self._started = self._started, None
        configured = started is not None
        if started is None:
            started = start_launcher(run_as=self._run_as, python=self._python, source=self._source)
        self._process = started
        started.link.setblocking(False)
        self.starts += 1
        self._link = started.link
        loop = asyncio.get_running_loop()
        self._proven = loop.create_future()
        if started.first is not None:
            self._first = started.first, self._expect(FIRST)
            self._next_number = FIRST + 1
        loop.add_reader(self._link.fileno(), self._hear)
        if not configured:
            started.configure(uid_base=self._uid_base, hooks=self._hooks)

    async def make(self, specification: SandboxSpec) -> Sandbox:
        """Make a sandbox. Raises: SandboxFailure."""
        await self.start()
        if self._first is not None and self._first[0] == specification:
            made = self._first[1]
            self._first = None
        else:
            number = self._next_number
            self._next_number += 1
            made = self._expect(number)
            self._tell({"make": number, "spec": spec_to_message(specification)})
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_throw_away)
            raise

    def _expect(self, number: int) -> asyncio.Future[Sandbox]:
        """Note that a sandbox will come."""
        made: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
        self._making[number] = made
        self._alive[number] = asyncio.Event()
        return made

    def owns(self, number: int) -> bool:
        """Tell whether a sandbox is one of the launcher that runs now; those of a dead one are dying."""
        return number in self._alive

    def kill(self, number: int) -> None:
        """Have every process of a sandbox killed; its meters can still be read. Returns at once."""
        if number in self._alive:
            self._tell({"kill": number})

    def end(self, number: int) -> None:
        """Have a sandbox killed and everything of it removed. Returns at once."""
        if number in self._alive:
            self._tell({"end": number})

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
        self._tell({"forget": layer})

    async def ended(self, number: int) -> None:
        """Wait until nothing of a sandbox is left."""
        if number in self._alive:
            await self._alive[number].wait()

    async def close(self) -> None:
        """End the launcher and with it every sandbox; wait until it is gone."""
        self._closed = True
        self._catch_up()
        if self._link is not None:
            self._link.shutdown(socket.SHUT_WR)
        if self._process is not None and not self._process.has_ended():
            await _end_of(self._process)
            self._process.kill()
        self._lost("the launcher was closed")
        if self._process is not None:
            self._process.close()
        if self.null >= 0:
            os.close(self.null)
            self.null = -1

    def _tell(self, message: dict[str, Any]) -> None:
        if self._link is None:
            return
        try:
            send(self._link, message)
        except BlockingIOError:
            # The launcher is far behind; the socket's buffer holds hundreds of messages.
            asyncio.get_running_loop().call_later(0.005, self._tell, message)
        except OSError:
            self._lost("the launcher died")

    def _hear(self) -> None:
        while self._link is not None:
            try:
                data, descriptors = receive(self._link)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._lost("the launcher died")
                return
            self._take(decode(data), descriptors)

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "ready" in message:
            number = message["ready"]
            if len(descriptors) != _STREAMS_AND_LINK + len(message["meters"]):
                self._refuse_incomplete(number, descriptors)
                return
            sandbox = Sandbox(self, number, message["pid"], descriptors, message["meters"])
            waiting = self._making.pop(number, None)
            if waiting is None or waiting.done():
                sandbox.close()
            else:
                waiting.set_result(sandbox)
        elif "ended" in message:
            event = self._alive.pop(message["ended"], None)
            if event is not None:
                event.set()
        elif "failed" in message:
            failure = SandboxFailure(message["failed"], message["errno"], message["detail"], message["hint"])
            event = self._alive.pop(message["number"], None)  # of one that did not come to be, no end is announced
            if event is not None:
                event.set()
            waiting = self._making.pop(message["number"], None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(failure)
            elif self._proven is not None and not self._proven.done():
                self._proven.set_exception(failure)
        elif "proven" in message and self._proven is not None and not self._proven.done():
            self._proven.set_result(message)

    def _refuse_incomplete(self, number: int, descriptors: list[int]) -> None:
        """Give up a sandbox whose descriptors did not all fit into this process."""
        for descriptor in descriptors:
            os.close(descriptor)
        self.end(number)
        failure = SandboxFailure(
            "descriptors", errno.EMFILE, "this process has too many open files", hint="raise `ulimit -n` or lower `slots`"
        )
        waiting = self._making.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(failure)

    def _lost(self, why: str) -> None:
        """Forget a launcher that is gone. Sandboxes notice by themselves: their links end."""
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
        if self._process is not None and not self._closed:
            self._process.kill()
            self._process.close()
        failure = SandboxFailure("launcher", detail=why, hint="it is started again; see the log for its last words")
        if self._proven is not None and not self._proven.done():
            self._proven.set_exception(failure)
        for waiting in self._making.values():
            if not waiting.done():
                waiting.set_exception(failure)
        self._making.clear()
        if self._first is not None:
            _throw_away(self._first[1])
            self._first = None
        for event in self._alive.values():
            event.set()
        self._alive.clear()


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
