"""Plan of a job: its files, limits, commands and sandbox specs, decided before it runs.

Needs no event loop: `firebox run` asks for its first sandbox before it loads one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import Limits, OutputMode, StageName, default_stack_bytes
from firebox.domain.model import CacheLevel, File, Image, Job
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime, shell_line
from firebox.sandbox.spec import Command, InputFile, Pack, SandboxSpec
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

IMAGE_PROCESSES = 100
IMAGE_OPEN_FILES = 100
_IMAGE_WALL_MS = 10_000
_IMAGE_OUTPUT_BYTES = 1 << 20
"""Limits of an image whose job names none."""

_MAX_PROCESSES = 4_000_000
"""The kernel takes no larger number, and has no more processes. Source: Linux, PID_MAX_LIMIT."""

TERM = "xterm-256color"
"""The type of a terminal, unless the job sets it."""

_LEAK_OPTIONS, _NO_LEAKS = "LSAN_OPTIONS", "detect_leaks=0"
"""LeakSanitizer, a part of AddressSanitizer, traces the program when it ends. Tracing is refused here, and it would report that
as an error of a correct program. The last value of this variable counts; ASAN_OPTIONS does not."""


class Plan(NamedTuple):
    """A job with everything decided. compile_limits: None when there is no compile stage. idle_ms: 0 for no limit.

    template: as of `Prestart`, where the runtime allows for one; None: templates are off.
    """

    job: Job
    runtime: Runtime
    files: tuple[File, ...]
    compile_limits: Limits | None
    run_limits: Limits
    compile_specification: SandboxSpec = SandboxSpec()
    run_specification: SandboxSpec = SandboxSpec()
    artifact_bytes: int = 0
    artifact_files: int = 0
    idle_ms: int = 0
    cache_level: CacheLevel = "none"
    may_start_ahead: bool = False
    preload: tuple[str, ...] = ()
    template: str | None = None

    @property
    def sources(self) -> list[str]:
        """Names of the source files, main first."""
        return [file.name for file in self.files if file.source]

    @property
    def first_specification(self) -> SandboxSpec:
        """Sandbox spec of the first stage."""
        return self.run_specification if self.compile_limits is None else self.compile_specification

    def command(
        self, stage: StageName, limits: Limits, env: Mapping[str, str], *, packed: Pack | None, terminal: tuple[int, int] | None
    ) -> Command:
        """Return the command of a stage. packed: what the compile stage made. terminal: rows and columns."""
        job = self.job
        is_run = stage == "run"
        return Command(
            argv=tuple(command_line(stage, job, self.runtime, self.sources, limits.memory_bytes)),
            env=env,
            files=() if packed is not None else tuple(InputFile(file.name, file.content) for file in self.files),
            packed=packed,
            stdin=job.stdin if is_run and not job.interactive else b"",
            interactive=job.interactive and is_run,
            terminal=terminal if is_run else None,
            wall_ms=limits.wall_ms,
            cpu_ms=limits.cpu_ms,
            memory_bytes=limits.memory_bytes,
            stack_bytes=limits.stack_bytes,
            processes=min(limits.processes, _MAX_PROCESSES),
            open_files=limits.open_files,
            file_size_bytes=limits.file_size_bytes,
            output_bytes=limits.output_bytes,
            kill_on_output=limits.output_mode is OutputMode.KILL,
            keep_files=is_run and bool(job.artifacts),
        )


class Planner:
    """Plans jobs of the runtimes of a registry."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._policy = limit_policy(settings)
        self._registry = registry
        # Host runtimes share one tree, so that one spec of idle sandboxes serves them all.
        self._trees = tuple(sorted({mount for runtime in registry.all() for mount in runtime.mounts}))

    @property
    def usual_specifications(self) -> tuple[SandboxSpec, ...]:
        """Sandbox specs of most jobs."""
        usual = SandboxSpec(trees=self._trees)
        return tuple(_with_room(usual, self._policy.default_limits(stage)) for stage in ("run", "compile"))

    def plan(self, job: Job) -> Plan:
        """Decide everything that can be decided before a slot is taken. Raises: RequestError."""
        if job.image is not None:
            return _plan_of_image(job, job.image)
        runtime = self._registry.resolve(job.language, job.version, installed=job.installed)
        check_compile_args(job, runtime)
        files = runtime.place(job.files)
        names = runtime.setting_names
        compile_limits = self._limits("compile", job, runtime)
        run_limits = self._limits("run", job, runtime)
        has_compile_stage = is_compiled(job, runtime, [file.name for file in files if file.source])
        room = min(compile_limits.writable_bytes, run_limits.writable_bytes) if has_compile_stage else run_limits.writable_bytes
        total = sum(len(file.content) for file in files)
        if total > room:
            raise InvalidRequest(f"the files are {total} bytes together, more than the {room} that can be written", where="files")
        return Plan(
            job=job,
            runtime=runtime,
            files=files,
            compile_limits=compile_limits if has_compile_stage else None,
            run_limits=run_limits,
            compile_specification=_with_room(self._root_of(runtime), compile_limits),
            run_specification=_with_room(self._root_of(runtime), run_limits),
            artifact_bytes=self._settings.max_artifact_bytes,
            artifact_files=self._settings.max_artifact_files,
            idle_ms=self._settings.interactive_idle_ms if job.attended else 0,
            cache_level=job.cache or self._settings.cache_level(names) or runtime.cache,
            may_start_ahead=self._settings.start_ahead and not job.fresh and not job.command and job.terminal is None,
            preload=self._settings.preloaded(names),
            template=(job.account if self._settings.isolate_templates else "") if self._settings.templates else None,
        )

    def _limits(self, stage: StageName, job: Job, runtime: Runtime) -> Limits:
        request = job.compile_limits if stage == "compile" else job.run_limits
        return self._policy.decide(stage, runtime, request, attended=job.attended, clamped=job.clamp_limits)

    def _root_of(self, runtime: Runtime) -> SandboxSpec:
        return SandboxSpec(trees=self._trees if runtime.on_host else (), layers=runtime.layers, host=runtime.on_host)


def _plan_of_image(job: Job, image: Image) -> Plan:
    """Plan a job in a container. Its limits are settings of the operator: no maximum applies. Raises: InvalidRequest."""
    if job.files or job.artifacts or job.terminal is not None:
        raise InvalidRequest("an image takes arguments and standard input only", where="image")
    asked = job.run_limits
    limits = Limits(
        wall_ms=asked.wall_ms or _IMAGE_WALL_MS,
        cpu_ms=0,
        memory_bytes=asked.memory_bytes or 0,
        stack_bytes=default_stack_bytes(asked.memory_bytes or 0),
        processes=asked.processes or IMAGE_PROCESSES,
        open_files=asked.open_files or IMAGE_OPEN_FILES,
        file_size_bytes=0,
        writable_bytes=0,
        writable_inodes=0,
        output_bytes=asked.output_bytes or _IMAGE_OUTPUT_BYTES,
        output_mode=asked.output_mode or OutputMode.KILL,
    )
    runtime = Runtime(language=job.language or image.name, version=image.name, main_name="", run=())
    return Plan(job=job, runtime=runtime, files=(), compile_limits=None, run_limits=limits)


@lru_cache(maxsize=1024)
def _with_room(specification: SandboxSpec, limits: Limits) -> SandboxSpec:
    return specification._replace(writable_bytes=limits.writable_bytes, writable_inodes=limits.writable_inodes)


def variables(stage: StageName, job: Job, runtime: Runtime) -> dict[str, str]:
    """Return the environment of a stage's command in a sandbox."""
    terminal = {"TERM": TERM} if job.terminal is not None and stage == "run" else {}
    chosen = {**BASE_ENVIRONMENT, **terminal, **runtime.environment(stage), **job.env}
    own = chosen.get(_LEAK_OPTIONS)
    return {**chosen, _LEAK_OPTIONS: f"{own}:{_NO_LEAKS}" if own else _NO_LEAKS}


def command_line(stage: StageName, job: Job, runtime: Runtime, sources: Sequence[str], memory_bytes: int) -> list[str]:
    """Return the command line of a stage. sources: names of the source files, main first. memory_bytes: 0 for no limit."""
    if job.image is not None:
        return list(job.args)
    if job.command:
        return ["/bin/sh", "-c", job.command, "sh", *job.args]
    if stage == "compile":
        steps = runtime.compile_commands(sources, memory_bytes, job.compile_args)
        return steps[0] if len(steps) == 1 else ["/bin/sh", "-c", shell_line(steps)]
    return runtime.run_command(sources, job.args, memory_bytes)


def check_compile_args(job: Job, runtime: Runtime) -> None:
    """Check the compiler arguments of a job. Raises: InvalidRequest."""
    if job.command and job.compile_args:
        raise InvalidRequest("a command replaces the compiler", where="compile_args")
    runtime.check_compile_args(job.compile_args)


def is_compiled(job: Job, runtime: Runtime, sources: Sequence[str]) -> bool:
    """Check whether a job has a compile stage."""
    return not job.command and runtime.has_compile_commands(sources)
