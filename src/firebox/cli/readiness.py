"""Measures the cost of idle sandboxes and prestarted interpreters on this host."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator

from firebox.domain.limits import STAGES
from firebox.runtimes.host_runtimes import HostScan
from firebox.runtimes.prestart import hook_texts, plan_ahead, plan_compiler_ahead
from firebox.runtimes.runtime import BASE_ENVIRONMENT, Runtime
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.launcher.host_support import Finding
from firebox.sandbox.launcher.launcher_process import LauncherProcess
from firebox.sandbox.pool.templates import ARE_POSSIBLE, make_template
from firebox.sandbox.spec import CommandRefused, Prestart, SandboxFailure, SandboxSpec
from firebox.service.available_runtimes import find_host_runtimes
from firebox.settings.limit_policy import limit_policy
from firebox.settings.settings import Settings

_TRIES = 5
_SETTLE_EVERY_S = 0.2
_SETTLE_AT_MOST_S = 3.0


def measure_readiness(settings: Settings) -> list[Finding]:
    """Create and measure idle sandboxes and prestarted programs; [] without sandboxes. Not to be called in an event loop."""
    scan = find_host_runtimes(settings)
    runtimes = [each for each in scan.runtimes if each.ahead or each.compile_ahead] if settings.start_ahead else []
    try:
        return [*asyncio.run(_measure(settings, runtimes)), _toolchains(settings, scan)]
    except SandboxFailure:
        return []


def _toolchains(settings: Settings, scan: HostScan) -> Finding:
    """Report whether toolchains can be prepared."""
    if not settings.prepare_toolchains:
        return Finding("toolchains", ok=True, detail="not prepared: prepare_toolchains is off")
    if scan.unprepared:
        reasons = "; ".join(each.reason for each in scan.unprepared)
        return Finding("toolchains", ok=False, detail=reasons, hint="set data_dir to a folder that may be shown")
    names = sorted({each.language for each in scan.preparations})
    return Finding("toolchains", ok=True, detail=f"can be prepared: {', '.join(names) or 'none needed'}")


async def _measure(settings: Settings, runtimes: list[Runtime]) -> list[Finding]:
    launcher = LauncherProcess(uid_base=settings.uid_base, hooks=hook_texts())
    try:
        await launcher.start()
        times_ms: list[float] = []
        empty_bytes = 0
        for _ in range(_TRIES):
            begun = time.perf_counter()
            sandbox = await launcher.make(SandboxSpec())
            times_ms.append((time.perf_counter() - begun) * 1000)
            empty_bytes = sandbox.memory_bytes()
            sandbox.close()
        each = f"{statistics.median(times_ms):.0f} ms to create one{_memory(empty_bytes, ', ')}"
        ready = Finding("ready-sandboxes", ok=True, detail=f"up to {settings.ready_count} per configuration; {each}")
        trees = tuple(sorted({mount for runtime in runtimes for mount in runtime.mounts}))
        plans = {name: ahead for runtime in reversed(runtimes) for name, ahead in _plans(runtime, settings)}
        kinds = {name: SandboxSpec(trees=trees, prestart=ahead) for name, ahead in sorted(plans.items())}
        return [ready, await _started_ahead(settings, launcher, kinds, empty_bytes), await _templates(settings, launcher, kinds)]
    finally:
        await launcher.close()


async def _started_ahead(
    settings: Settings, launcher: LauncherProcess, kinds: dict[str, SandboxSpec], empty_bytes: int
) -> Finding:
    if not settings.start_ahead:
        return Finding("started-ahead", ok=True, detail="nothing: start_ahead is off")

    async def measured(name: str, kind: SandboxSpec) -> str:
        sandbox = await launcher.make(kind)
        more_bytes = await _settled_bytes(sandbox) - empty_bytes
        sandbox.close()
        return name + _memory(more_bytes, " ")

    detail = ", ".join(await asyncio.gather(*(measured(name, kind) for name, kind in kinds.items())))
    return Finding("started-ahead", ok=True, detail=f"when used often: {detail}" if detail else "nothing: no such program here")


async def _templates(settings: Settings, launcher: LauncherProcess, kinds: dict[str, SandboxSpec]) -> Finding:
    """Report which interpreters can be restored from a template, and why others cannot."""
    if not (settings.start_ahead and settings.templates):
        return Finding("templates", ok=True, detail=f"none: {'templates' if settings.start_ahead else 'start_ahead'} is off")
    if not ARE_POSSIBLE:
        return Finding("templates", ok=True, detail="none: they require x86-64")
    made: list[str] = []
    missing: list[str] = []
    for name, kind in kinds.items():
        if kind.prestart is None or kind.prestart.template is None:
            continue
        try:
            template = await make_template(kind, launcher.make, made_at=0.0)
        except (SandboxFailure, CommandRefused, OSError) as failure:
            missing.append(f"none of {name}: {failure}")
        else:
            made.append(f"{name}{_memory(template.bytes, ' ')}")
    hint = "these interpreters are started for each run; `templates = false` silences this" if missing else ""
    return Finding("templates", ok=not missing, detail="; ".join([", ".join(made) or "none", *missing]), hint=hint)


def _plans(runtime: Runtime, settings: Settings) -> Iterator[tuple[str, Prestart]]:
    """Yield the programs of a runtime that can be prestarted, by name."""
    command = runtime.run_command([runtime.main_name], (), 0)
    env = {stage: {**BASE_ENVIRONMENT, **runtime.environment(stage)} for stage in STAGES}
    preload = settings.preloaded(runtime.setting_names)
    interpreter = plan_ahead(runtime, command, (), env["run"], preload, template="" if settings.templates else None)
    if interpreter is not None:
        yield runtime.language, interpreter
    memory_bytes = limit_policy(settings).default_limits("compile", runtime).memory_bytes
    compiler = plan_compiler_ahead(runtime, (), env["compile"], memory_bytes)
    if compiler is not None:
        yield f"{runtime.language}'s compiler", compiler


async def _settled_bytes(sandbox: Sandbox) -> int:
    """Wait until a prestarted program's memory stops growing, and return its size."""
    before, now = -1, sandbox.memory_bytes()
    deadline = time.monotonic() + _SETTLE_AT_MOST_S
    while now != before and time.monotonic() < deadline:
        await asyncio.sleep(_SETTLE_EVERY_S)
        before, now = now, sandbox.memory_bytes()
    return now


def _memory(size_bytes: int, before: str) -> str:
    """Format a size; "" without a cgroup to measure it."""
    return f"{before}{size_bytes / (1 << 20):.1f} MiB" if size_bytes > 0 else ""
