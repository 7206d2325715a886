"""Templates: what a waiting interpreter is restored from, instead of being started again and again.

A template is the memory of an interpreter that has started and waits, taken once, before it has seen anything of a job. It is
made in a sandbox of its own, by native/capture.c; PID 1 of another sandbox executes it (native/restorer/). What it is restored to
is the real interpreter, which goes on as one that was started prestart does: see decision 0012.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Awaitable, Callable

from firebox.sandbox.instance.sandbox import Output, Sandbox
from firebox.sandbox.protocol.messages import TEMPLATE
from firebox.sandbox.spec import Command, CommandRefused, Exit, InputFile, Prestart, SandboxFailure, SandboxSpec
from firebox.sandbox.template import Template

ARE_POSSIBLE = os.uname().machine == "x86_64"
"""native/restorer/ is written for that processor."""
TEMPLATE_BYTES = 64 << 20
"""Largest template: a sandbox that is restored from it holds a copy of each of its pages."""
TOTAL_BYTES = 256 << 20
"""All templates together; beyond, interpreters are started."""

_AT_ONCE = 2
_WALL_MS = 20_000
_OUTPUT_BYTES = 4 << 10
_CAPTURE = "capture"
_PAUSE_S = 10.0
"""After a capture that failed for a reason which is not the interpreter's."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


Make = Callable[[SandboxSpec, Template | None], Awaitable[Sandbox]]
"""What makes a sandbox, with a template from which its program is restored."""


class Templates:
    """The templates of the kinds of sandboxes that are kept ready.

    make: makes a sandbox. age_s, runs: after which a template is made anew, while the old one serves on. note: is told which kind
    has no template, and why.
    """

    def __init__(
        self,
        make: Make,
        *,
        age_s: float,
        runs: int,
        note: Callable[[SandboxSpec, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._age_s = age_s
        self._runs = runs
        self._note = note
        self._clock = clock
        self._templates: dict[SandboxSpec, Template] = {}
        self._not_before: dict[SandboxSpec, float] = {}
        """When a kind that could not be captured, or not be restored, is tried again."""
        self._under_way: dict[SandboxSpec, asyncio.Task[None]] = {}

    def has(self, kind: SandboxSpec) -> bool:
        """Tell whether the next sandbox of a kind could have its program restored."""
        template = self._templates.get(kind)
        return template is not None and not template.failed

    def take(self, kind: SandboxSpec) -> Template | None:
        """Return the template to restore the program of one sandbox of a kind from; None while there is none."""
        template = self._templates.get(kind)
        if template is not None and template.failed:
            del self._templates[kind]
            self._give_up(kind, "a program that was restored ended before it could go on", self._age_s)
            template = None
        if template is not None:
            template.runs += 1
        return template

    def want(self, kind: SandboxSpec) -> None:
        """Begin to make the template of a kind, if it can have one and that is missing or worn."""
        if kind.prestart is None or kind.prestart.template is None or not ARE_POSSIBLE:
            return
        template = self._templates.get(kind)
        if template is None or template.runs >= self._runs or self._clock() - template.made_at >= self._age_s:
            self._renew(kind)

    def forget(self, kind: SandboxSpec) -> None:
        """Let go of the template of a kind that is not kept ready any more."""
        self._templates.pop(kind, None)
        self._not_before.pop(kind, None)
        task = self._under_way.pop(kind, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop making templates."""
        tasks = list(self._under_way.values())
        for kind in {*self._templates, *self._under_way}:
            self.forget(kind)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _renew(self, kind: SandboxSpec) -> None:
        if kind in self._under_way or len(self._under_way) >= _AT_ONCE or self._clock() < self._not_before.get(kind, 0.0):
            return
        self._under_way[kind] = asyncio.create_task(self._capture(kind))

    def _give_up(self, kind: SandboxSpec, reason: str, pause_s: float) -> None:
        """Start interpreters of a kind as they are for a while."""
        self._note(kind, reason)
        self._not_before[kind] = self._clock() + pause_s

    async def _capture(self, kind: SandboxSpec) -> None:
        try:
            template = await make_template(kind, self._make, self._clock())
            others = sum(other.bytes for each, other in self._templates.items() if each != kind)
            if others + template.bytes > TOTAL_BYTES:
                self._give_up(kind, "the templates of others leave no room", self._age_s)
                return
            self._templates[kind] = template
        except (SandboxFailure, CommandRefused, OSError) as failure:
            # What is about the interpreter stays so; a launcher that was killed is there again at once.
            is_about_kind = isinstance(failure, CommandRefused) or getattr(failure, "step", "") == _CAPTURE
            self._give_up(kind, str(failure), self._age_s if is_about_kind else min(_PAUSE_S, self._age_s))
        finally:
            if self._under_way.get(kind) is asyncio.current_task():  # else it was forgotten, and perhaps begun anew
                del self._under_way[kind]


async def make_template(kind: SandboxSpec, make: Make, made_at: float) -> Template:
    """Make the template of a kind, and see what it draws where that can be seen. Raises: as `capture`."""
    template = Template(await capture(kind, make), made_at)
    if kind.prestart is not None and kind.prestart.draws:
        await _compare_draws(kind, kind.prestart, template, make)
    return template


async def _compare_draws(kind: SandboxSpec, prestart: Prestart, template: Template, make: Make) -> None:
    """Restore a program twice and see that it does not draw the same random numbers. Raises: SandboxFailure."""
    seen: set[bytes] = set()
    command = _command(kind, prestart, prestart.draws.encode())._replace(resume_words=())
    for _ in range(2):
        sandbox = await make(kind, template)
        try:
            ended, stdout, stderr = await _run(sandbox, command)
            was_restored = sandbox.was_prestarted
        finally:
            sandbox.close()
        lines = set(stdout.splitlines())
        if not was_restored:
            raise SandboxFailure(_CAPTURE, detail="what was captured cannot be restored")
        if ended is None or ended.status != 0 or not lines:
            raise SandboxFailure(_CAPTURE, detail=_text(stderr) or "what was restored does not go on")
        if lines & seen:
            raise SandboxFailure(_CAPTURE, detail="what was restored draws the same random numbers each time")
        seen |= lines


async def capture(kind: SandboxSpec, make: Make) -> int:
    """Make the template of a kind. Returns its descriptor. Raises: SandboxFailure with the reason, CommandRefused, OSError."""
    prestart = kind.prestart
    assert prestart is not None  # noqa: S101 - else nothing waits
    # The main file is as PID 1 leaves it for a program that waits; see native/prestart.c.
    command = _command(kind, prestart, b"" if prestart.held else b"\n")._replace(
        file_size_bytes=TEMPLATE_BYTES,
        keep_files=True,
        capture=prestart.main if prestart.held else "",
        other_pid=prestart.other_pid,
    )
    sandbox = await make(kind._replace(prestart=None, captures=True), None)
    try:
        _ended, _stdout, stderr = await _run(sandbox, command)
        collected = await sandbox.collect([TEMPLATE], TEMPLATE_BYTES, 1)
    finally:
        sandbox.close()
    content = collected.pack.descriptor
    try:
        if len(collected.pack.files) != 1 or os.pread(content, 4, 0) != b"\x7fELF":
            raise SandboxFailure(_CAPTURE, detail=_text(stderr) or "the program ended before it waited")
        os.fchmod(content, 0o555)
        fcntl.fcntl(content, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(content)
        raise
    return content


def _command(kind: SandboxSpec, prestart: Prestart, main: bytes) -> Command:
    """Return what starts the program. main: the contents of its main file, where it has one."""
    return Command(
        argv=prestart.argv,
        env=dict(prestart.env),
        files=(InputFile(prestart.main, main),) if prestart.main else (),
        wall_ms=_WALL_MS,
        cpu_ms=_WALL_MS,
        memory_bytes=kind.memory_bytes,
        stack_bytes=prestart.stack_bytes or kind.memory_bytes,
        processes=kind.processes,
        output_bytes=_OUTPUT_BYTES,
    )


async def _run(sandbox: Sandbox, command: Command) -> tuple[Exit | None, bytes, bytes]:
    """Run a command to its end. Returns how it ended, stdout and stderr. Raises: as `Sandbox.run`."""
    ended: Exit | None = None
    output = {"stdout": bytearray(), "stderr": bytearray()}
    async for event in sandbox.events(command):
        if isinstance(event, Output):
            output[event.stream] += event.data
        elif isinstance(event, Exit):
            ended = event
    return ended, bytes(output["stdout"]), bytes(output["stderr"])


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()
