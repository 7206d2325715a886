"""Artifacts: files that a program leaves. Those that match are handed back, the others are named with the reason.

Artifacts come with the result of a run and never change its verdict. Names and contents are untrusted: names are checked, and
bounded in number and length.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from firebox.domain.limits import Limits
from firebox.domain.model import File, LeftOut, StageResult, Verdict
from firebox.engine.backends.backend import Artifacts
from firebox.engine.log import LazyLogger
from firebox.sandbox.instance.sandbox import Sandbox
from firebox.sandbox.protocol import pack as packs
from firebox.sandbox.spec import Exit, Pack, SandboxFailure

SEARCH_LEAST_MS = 500.0
"""Search time after a program that used up its wall time; without it nothing could be handed back."""
SEARCH_MOST_MS = 2_000.0
COMPILE_SEARCH_MS = 10_000.0

_LEFT_OUT = 100
_CHARACTERS = 200

_log = LazyLogger()


_TOO_MUCH = (packs.TOO_LARGE, packs.TOO_MANY, packs.TOO_MANY_ENTRIES, packs.OUT_OF_TIME)


async def take_artifacts(
    sandbox: Sandbox, ended: Exit, limits: Limits, patterns: Sequence[str], most_bytes: int, most_files: int
) -> Artifacts:
    """Collect the files that match from the sandbox of a run that has ended.

    The search takes at most the rest of the run's wall time, within bounds. A failure becomes the reason in `left_out`.
    """
    budget_ms = min(max(limits.wall_ms - ended.wall_ms, SEARCH_LEAST_MS), SEARCH_MOST_MS)
    try:
        pack, skipped, cpu_ms = await sandbox.collect(patterns, most_bytes, most_files, budget_ms)
    except SandboxFailure as failure:
        _log.info("artifacts not collected", step=failure.step, errno=failure.errno, detail=failure.detail)
        reason = "the program was killed together with its files" if ended.killed_by else "the files could not be collected"
        return Artifacts(left_out=_named(((pattern, reason) for pattern in patterns), most_bytes, most_files))
    try:
        good = [each for each in pack.files if each.name.isprintable()]
        skipped += [(each.name, "its name is not printable") for each in pack.files if not each.name.isprintable()]
        files = tuple(File(each.name, os.pread(pack.descriptor, each.size, each.offset)) for each in good)
    finally:
        os.close(pack.descriptor)
    return Artifacts(files, _named(skipped, most_bytes, most_files), cpu_ms)


async def take_produced(sandbox: Sandbox, result: StageResult, limits: Limits) -> tuple[StageResult, Pack | None]:
    """Collect everything that a good compile stage made. Returns the stage's result, which says if it made too much.

    Raises: SandboxFailure.
    """
    pack, skipped, cpu_ms = await sandbox.collect(["*"], limits.writable_bytes, limits.writable_inodes, COMPILE_SEARCH_MS)
    result = replace(result, cpu_ms=result.cpu_ms + cpu_ms)
    reason = next((why for _name, why in skipped if why in _TOO_MUCH), "")
    if not reason:
        return result, pack
    os.close(pack.descriptor)
    words = f"what it made cannot be taken to the run stage: {_in_words(reason, limits.writable_bytes, limits.writable_inodes)}"
    return replace(result, verdict=Verdict.RUNTIME_ERROR, reason=words), None


def _named(skipped: Iterable[tuple[str, str]], most_bytes: int, most_files: int) -> tuple[LeftOut, ...]:
    found = [LeftOut(_shown(name) or ".", _shown(_in_words(why, most_bytes, most_files))) for name, why in skipped]
    return tuple(found[:_LEFT_OUT])


def _in_words(why: str, most_bytes: int, most_files: int) -> str:
    match why:
        case packs.TOO_LARGE:
            return f"too large: all files together may have {most_bytes} bytes"
        case packs.TOO_MANY:
            return f"too many: at most {most_files} files are taken"
        case packs.TOO_MANY_ENTRIES:
            return "too many files and folders to look through"
        case packs.OUT_OF_TIME:
            return "the time to look for files was over"
        case _:
            return why


def _shown(text: str) -> str:
    """Return untrusted text in a form that can be shown: printable, valid UTF-8 and short."""
    start = text[:_CHARACTERS]
    if not start.isprintable():
        start = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in start)
    return start if len(text) <= _CHARACTERS else start + "..."
