"""Limits of a stage and of a whole job: what a request asks for, what the operator allows, what applies.

0 means "no cap" for the limits in `ZERO_IS_NO_CAP`, and "no maximum" in maxima. `exceeds` and `clamp` are the only
functions that compare a limit with its maximum.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from firebox.domain.errors import InvalidRequest, LimitTooHigh

StageName = Literal["compile", "run"]
STAGES: tuple[StageName, ...] = get_args(StageName)


class OutputMode(StrEnum):
    """What happens to a stream that reaches `output_bytes`: cut it and let the program go on, or kill the program."""

    CUT = "cut"
    KILL = "kill"


class Limits(Struct, frozen=True, kw_only=True):
    """The limits that apply to one stage. 0 means no cap, except where noted."""

    wall_ms: int
    """Wall time from the start of the program; never 0."""
    cpu_ms: int
    """CPU time of the whole process tree, user and system."""
    memory_bytes: int
    """Resident memory of the whole tree, swap, tmpfs and kernel memory included."""
    stack_bytes: int
    """Stack of the main thread, and the default for further threads; counts as memory too.
    In requests, defaults and maxima 0 means as large as `memory_bytes`."""
    processes: int
    """Processes and threads alive at once; never 0."""
    open_files: int
    """File descriptors of each process; never 0."""
    file_size_bytes: int
    """Size of each file written; never 0."""
    writable_bytes: int
    """Sum of everything written anywhere; never 0."""
    writable_inodes: int
    """Files and folders in everything that can be written; never 0."""
    output_bytes: int
    """Bytes kept of each of stdout and stderr; never 0."""
    output_mode: OutputMode


class LimitRequest(Struct, frozen=True, kw_only=True, cache_hash=True):
    """The limits that a client or a runtime asks for in one stage; None: the default. Fields as in `Limits`."""

    wall_ms: int | None = None
    cpu_ms: int | None = None
    memory_bytes: int | None = None
    stack_bytes: int | None = None
    processes: int | None = None
    open_files: int | None = None
    file_size_bytes: int | None = None
    writable_bytes: int | None = None
    writable_inodes: int | None = None
    output_bytes: int | None = None
    output_mode: OutputMode | None = None


LIMIT_NAMES = Limits.__struct_fields__
NUMBER_NAMES = tuple(name for name in LIMIT_NAMES if name != "output_mode")
ZERO_IS_NO_CAP = frozenset({"cpu_ms", "memory_bytes", "stack_bytes"})

MAX_NUMBER = 2**53
"""The largest limit in a request, also where the operator set no maximum: larger JSON numbers are not exact everywhere."""

STACK_WITHOUT_MEMORY_LIMIT_BYTES = 1 << 30
"""Not unlimited: the kernel then uses another memory layout, and libraries choose a thread stack size of their own."""

_LEAST = {"memory_bytes": 4 << 20, "open_files": 8, "writable_bytes": 4096, "writable_inodes": 16}
_LEAST_COMPILE_PROCESSES = 3
"""A compiler, its child and its grandchild: gcc tries for 15 s to start the linker where it may not."""

_USUAL_STACK_BYTES = 8 << 20


def least_limit(stage: StageName, name: str) -> int:
    """Return the lowest value of a limit, other than 0 for no cap, that leaves room for the sandbox and a program."""
    return _LEAST_COMPILE_PROCESSES if (stage, name) == ("compile", "processes") else _LEAST.get(name, 1)


def exceeds(asked: int, *, maximum: int) -> bool:
    """Check whether a limit is above its maximum. asked: 0 for no cap. maximum: 0 for none."""
    return maximum != 0 and (asked == 0 or asked > maximum)


def clamp(asked: int, *, maximum: int) -> int:
    """Return a limit, or its maximum where that is lower. 0 as in `exceeds`."""
    return maximum if exceeds(asked, maximum=maximum) else asked


def check_limits(stage: StageName, request: LimitRequest) -> None:
    """Check that a stage could run under these limits, whatever the maxima. Raises: InvalidRequest, where: "run.wall_ms"."""
    for name in NUMBER_NAMES:
        value: int | None = getattr(request, name)
        if value is None or (value == 0 and name in ZERO_IS_NO_CAP):
            continue
        least = least_limit(stage, name)
        if value < least:
            no_cap = ", or 0 for no cap" if name in ZERO_IS_NO_CAP else ""
            raise InvalidRequest(f"{value} is too small: at least {least} is needed{no_cap}", where=f"{stage}.{name}")
        if value > MAX_NUMBER:
            raise InvalidRequest(f"{value} is too large: at most {MAX_NUMBER} is understood", where=f"{stage}.{name}")


class Deadline(Struct, frozen=True, kw_only=True):
    """The wall time of a whole job, from the start of its first stage."""

    wall_ms: int
    """All stages together."""
    compile_wall_ms: int = 0
    """Of the compile stage, where its toolchain needs more than `wall_ms`. The run stage then has at least half of `wall_ms`."""

    def shorten(self, stage: StageName, limits: Limits, *, elapsed_ms: float) -> Limits:
        """Return the limits of a stage that starts `elapsed_ms` after the first one."""
        is_long = self.compile_wall_ms > self.wall_ms
        left_ms = (self.compile_wall_ms if is_long and stage == "compile" else self.wall_ms) - elapsed_ms
        if is_long and stage == "run":
            left_ms = max(left_ms, self.wall_ms / 2)
        return replace(limits, wall_ms=max(1, round(left_ms))) if left_ms < limits.wall_ms else limits


class HasLimits(Protocol):
    """A runtime, as far as limits are concerned."""

    @property
    def setting_names(self) -> tuple[str, ...]:
        """Its names in the operator's overrides, the most specific first."""
        ...

    def limits(self, stage: StageName) -> LimitRequest:
        """Return the limits that it asks for instead of the defaults."""
        ...


class NamedLanguage(NamedTuple):
    """A language without a runtime of ours: only the operator's overrides know it."""

    setting_names: tuple[str, ...] = ()

    def limits(self, stage: StageName) -> LimitRequest:  # noqa: ARG002 - as in `HasLimits`
        return LimitRequest()


ANY_LANGUAGE = NamedLanguage()


class LimitPolicy(Struct, frozen=True, kw_only=True, eq=False):
    """The operator's limits. Immutable, and compared by identity, so that decisions can be cached."""

    defaults: Mapping[StageName, Limits]
    maxima: Mapping[StageName, Limits]
    """`output_mode` has no maximum: it is the default one."""
    overrides: Mapping[str, Mapping[str, int | str]]
    """By language or package in lower case: limits by the name of their setting ("run_wall_ms", "max_run_wall_ms")."""
    chosen: frozenset[str]
    """Names of the settings of limits that the operator has set; the others have their built-in values."""
    interactive_wall_ms: int
    interactive_cpu_ms: int

    def default_limits(self, stage: StageName, runtime: HasLimits = ANY_LANGUAGE) -> Limits:
        """Return the limits of a stage for a request that asks for nothing.

        An override comes first, then what the operator has set for all, then what the runtime asks for; never above the maximum.
        """
        return _defaults(self, stage, runtime.setting_names, runtime.limits(stage))

    def maximum_limits(self, stage: StageName, runtime: HasLimits = ANY_LANGUAGE) -> Limits:
        """Return the most that a request may ask for."""
        return _maxima(self, stage, runtime.setting_names)

    def override(self, setting: str, names: Iterable[str]) -> int | str | None:
        """Return the override of a setting ("run_memory_bytes"), or None. names: as of `HasLimits.setting_names`."""
        values = (self.overrides.get(name.lower(), {}).get(setting) for name in names)
        return next((value for value in values if value is not None), None)

    def decide(
        self, stage: StageName, runtime: HasLimits, request: LimitRequest, *, attended: bool = False, clamped: bool = False
    ) -> Limits:
        """Decide every limit of a stage. Cached: most requests ask for nothing.

        attended: a person uses the program, and takes time to think: defaults and maxima of its run stage are longer, unless
        the operator has set a maximum. clamped: lower what is above a maximum to it, instead of refusing it.
        Raises: InvalidRequest, as `check_limits`; LimitTooHigh, for "no cap" under a maximum too.
        """
        wanted = runtime.limits(stage)
        return _decide(self, stage, runtime.setting_names, wanted, request, attended and stage == "run", clamped)


@lru_cache(maxsize=4096)
def _maxima(policy: LimitPolicy, stage: StageName, names: tuple[str, ...]) -> Limits:
    return _overridden(policy.maxima[stage], policy, f"max_{stage}_", names)


@lru_cache(maxsize=4096)
def _defaults(policy: LimitPolicy, stage: StageName, names: tuple[str, ...], wanted: LimitRequest) -> Limits:
    wishes = {
        name: value
        for name in LIMIT_NAMES
        if (value := getattr(wanted, name)) is not None and f"{stage}_{name}" not in policy.chosen
    }
    limits = _overridden(replace(policy.defaults[stage], **wishes), policy, f"{stage}_", names)
    maxima = _maxima(policy, stage, names)
    return replace(limits, **{name: clamp(getattr(limits, name), maximum=getattr(maxima, name)) for name in NUMBER_NAMES})


def _overridden(limits: Limits, policy: LimitPolicy, prefix: str, names: tuple[str, ...]) -> Limits:
    values: dict[str, Any] = asdict(limits)
    for name in LIMIT_NAMES:
        value = policy.override(prefix + name, names)
        if value is not None:
            values[name] = value
    return msgspec.convert(values, Limits)


def _attended(policy: LimitPolicy, defaults: Limits, maxima: Limits) -> tuple[Limits, Limits]:
    for name, longer in (("wall_ms", policy.interactive_wall_ms), ("cpu_ms", policy.interactive_cpu_ms)):
        default, maximum = getattr(defaults, name), getattr(maxima, name)
        wanted = clamp(longer, maximum=maximum if f"max_run_{name}" in policy.chosen else 0)
        if default:
            defaults = replace(defaults, **{name: max(default, wanted)})
        if maximum:
            maxima = replace(maxima, **{name: max(maximum, wanted)})
    return defaults, maxima


@lru_cache(maxsize=1024)
def _decide(
    policy: LimitPolicy,
    stage: StageName,
    names: tuple[str, ...],
    wanted: LimitRequest,
    request: LimitRequest,
    attended: bool,
    clamped: bool,
) -> Limits:
    check_limits(stage, request)
    defaults, maxima = _defaults(policy, stage, names, wanted), _maxima(policy, stage, names)
    if attended:
        defaults, maxima = _attended(policy, defaults, maxima)
    decided: dict[str, Any] = asdict(defaults)
    for name in NUMBER_NAMES:
        asked: int | None = getattr(request, name)
        if asked is None:
            continue
        maximum: int = getattr(maxima, name)
        if exceeds(asked, maximum=maximum) and not clamped:
            raise LimitTooHigh(f"{stage}.{name}", asked=asked or math.inf, allowed=maximum)
        decided[name] = clamp(asked, maximum=maximum)
    if request.output_mode is not None:
        decided["output_mode"] = request.output_mode
    if not decided["stack_bytes"]:
        decided["stack_bytes"] = clamp(default_stack_bytes(decided["memory_bytes"]), maximum=maxima.stack_bytes)
    return Limits(**decided)


def default_stack_bytes(memory_bytes: int) -> int:
    """Return the stack size of programs under a memory limit, 0 for none: all of it, as on online judges."""
    return min(memory_bytes or STACK_WITHOUT_MEMORY_LIMIT_BYTES, _largest_stack_bytes())


@cache
def _largest_stack_bytes() -> int:
    """Return the largest stack that each of many threads can have on this host, used or not.

    Source: the kernel's vm/overcommit-accounting.rst: mode 2 counts what is promised, mode 0 refuses more than the whole memory.
    """
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text(encoding="ascii").strip() == "2"
    except OSError:
        strict = False
    return _USUAL_STACK_BYTES if strict else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
