"""Templates: memory images from which waiting interpreters are restored instead of started.

A template is captured once from an interpreter that has started and waits, before it sees anything of a job. native/capture.c
creates it in a sandbox of its own, and PID 1 of another sandbox executes it (native/restorer/). The result is the real
interpreter, which resumes like any prestarted one: see decision 0012.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Awaitable, Callable

from firebox.sandbox.instance.sandbox import Sandbox, Template
from firebox.sandbox.protocol.messages import TEMPLATE
from firebox.sandbox.spec import Command, CommandRefused, InputFile, Prestart, SandboxFailure, SandboxSpec

ARE_POSSIBLE = os.uname().machine == "x86_64"
"""native/restorer/ supports only this architecture."""
TEMPLATE_BYTES = 64 << 20
"""Maximum size of a template. A restored sandbox holds a copy of each of its pages."""
TOTAL_BYTES = 256 << 20
"""Maximum size of all templates together. Beyond it interpreters are started normally."""

_AT_ONCE = 2
_WALL_MS = 20_000
_OUTPUT_BYTES = 4 << 10
_CAPTURE = "capture"
_PAUSE_S = 10.0
"""Delay after a capture that failed for a reason other than the interpreter."""
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


Make = Callable[[SandboxSpec, Template | None], Awaitable[Sandbox]]
"""Creates a sandbox, optionally with the template of its prestarted program."""


class Templates:
    """The templates of the specs in a pool.

    age_s, runs: when to renew a template; the old one is used meanwhile. note: called with a spec whose template cannot be
    created, and the reason.
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
        """When to retry a spec whose capture or restore failed."""
        self._under_way: dict[SandboxSpec, asyncio.Task[None]] = {}

    def has(self, spec: SandboxSpec) -> bool:
        """Return whether the program of the next sandbox can be restored."""
        template = self._templates.get(spec)
        return template is not None and not template.failed

    def take(self, spec: SandboxSpec) -> Template | None:
        """Return the template for the next sandbox of a spec; None while there is none. Counts a run."""
        template = self._templates.get(spec)
        if template is not None and template.failed:
            del self._templates[spec]
            self._give_up(spec, "a restored program ended before it could continue", self._age_s)
            template = None
        if template is not None:
            template.runs += 1
        return template

    def want(self, spec: SandboxSpec) -> None:
        """Start capturing the template of a spec, if it can have one and that is missing or due for renewal."""
        if spec.prestart is None or spec.prestart.template is None or not ARE_POSSIBLE:
            return
        template = self._templates.get(spec)
        if template is None or template.runs >= self._runs or self._clock() - template.made_at >= self._age_s:
            self._renew(spec)

    def forget(self, spec: SandboxSpec) -> None:
        """Drop the template of a spec that left the pool."""
        self._templates.pop(spec, None)
        self._not_before.pop(spec, None)
        task = self._under_way.pop(spec, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Cancel captures and drop all templates."""
        tasks = list(self._under_way.values())
        for spec in {*self._templates, *self._under_way}:
            self.forget(spec)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _renew(self, spec: SandboxSpec) -> None:
        if spec in self._under_way or len(self._under_way) >= _AT_ONCE or self._clock() < self._not_before.get(spec, 0.0):
            return
        self._under_way[spec] = asyncio.create_task(self._capture(spec))

    def _give_up(self, spec: SandboxSpec, reason: str, pause_s: float) -> None:
        """Do without a template for a while."""
        self._note(spec, reason)
        self._not_before[spec] = self._clock() + pause_s

    async def _capture(self, spec: SandboxSpec) -> None:
        try:
            template = await make_template(spec, self._make, self._clock())
            others = sum(other.bytes for each, other in self._templates.items() if each != spec)
            if others + template.bytes > TOTAL_BYTES:
                self._give_up(spec, "other templates leave no room", self._age_s)
                return
            self._templates[spec] = template
        except (SandboxFailure, CommandRefused, OSError) as failure:
            # A problem of the interpreter persists; a killed launcher is back at once.
            is_about_spec = isinstance(failure, CommandRefused) or getattr(failure, "step", "") == _CAPTURE
            self._give_up(spec, str(failure), self._age_s if is_about_spec else min(_PAUSE_S, self._age_s))
        finally:
            if self._under_way.get(spec) is asyncio.current_task():  # else it was dropped, and may have been started again
                del self._under_way[spec]


async def make_template(spec: SandboxSpec, make: Make, made_at: float) -> Template:
    """Create the template of a spec and, if it can be checked, that restores draw different numbers. Raises: as `capture`."""
    template = Template(await capture(spec, make), made_at)
    if spec.prestart is not None and spec.prestart.draws:
        await _compare_draws(spec, spec.prestart, template, make)
    return template


async def _compare_draws(spec: SandboxSpec, prestart: Prestart, template: Template, make: Make) -> None:
    """Restore a program twice and compare its random numbers. Raises: SandboxFailure when any is the same."""
    seen: set[bytes] = set()
    command = _command(spec, prestart, prestart.draws.encode())._replace(resume_words=())
    for _ in range(2):
        sandbox = await make(spec, template)
        try:
            ended, stdout, stderr = await sandbox.run(command)
            was_restored = sandbox.was_prestarted
        finally:
            sandbox.close()
        lines = set(stdout.splitlines())
        if not was_restored:
            raise SandboxFailure(_CAPTURE, detail="the captured program cannot be restored")
        if ended.status != 0 or not lines:
            raise SandboxFailure(_CAPTURE, detail=_text(stderr) or "the restored program does not continue")
        if lines & seen:
            raise SandboxFailure(_CAPTURE, detail="restored programs draw the same random numbers")
        seen |= lines


async def capture(spec: SandboxSpec, make: Make) -> int:
    """Capture the program of a spec. Returns a descriptor. Raises: SandboxFailure with the reason, CommandRefused, OSError."""
    prestart = spec.prestart
    assert prestart is not None  # noqa: S101 - the caller checks
    # The same main file as PID 1 writes for a waiting program; see native/prestart.c.
    command = _command(spec, prestart, b"" if prestart.held else b"\n")._replace(
        file_size_bytes=TEMPLATE_BYTES,
        keep_files=True,
        capture=prestart.main if prestart.held else "",
        other_pid=prestart.other_pid,
    )
    sandbox = await make(spec._replace(prestart=None, captures=True), None)
    try:
        _ended, _stdout, stderr = await sandbox.run(command)
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


def _command(spec: SandboxSpec, prestart: Prestart, main: bytes) -> Command:
    """Return the command that starts the program. main: the content of its main file, if it has one."""
    return Command(
        argv=prestart.argv,
        env=dict(prestart.env),
        files=(InputFile(prestart.main, main),) if prestart.main else (),
        wall_ms=_WALL_MS,
        cpu_ms=_WALL_MS,
        memory_bytes=spec.memory_bytes,
        stack_bytes=prestart.stack_bytes or spec.memory_bytes,
        processes=spec.processes,
        output_bytes=_OUTPUT_BYTES,
    )


def _text(output: bytes) -> str:
    return output.decode(errors="replace").strip()
