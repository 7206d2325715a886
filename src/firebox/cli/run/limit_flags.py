"""Limits on the command line: `5s`, `256m`, `processes=20`, `compile.wall=30s`.

A bare number is in the unit of the name, as in `wall_ms=500`. Where the name has no unit, a bare time is in seconds, and a bare
size is refused: some users mean bytes, others megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from firebox.domain.errors import InvalidRequest
from firebox.domain.limits import LIMIT_NAMES, STAGES, LimitRequest, OutputMode, StageName
from firebox.settings.settings_table import ROWS

_UNIT = re.compile(r"_(ms|bytes)$")
_BARE = re.compile(r"\s*\d+(\.\d+)?\s*", re.ASCII)
_BY_SHORT_NAME = {_UNIT.sub("", name): name for name in LIMIT_NAMES}


def read_limits(words: Iterable[str], wanted: LimitRequest, *, where: str = "--limit") -> dict[StageName, LimitRequest]:
    """Read `[compile.|run.]name=value` words; they override `wanted`, the limits of the run stage so far.

    The unit of the name may be left out; the default stage is `run`. Raises: InvalidRequest.
    """
    limits: dict[StageName, LimitRequest] = {"compile": LimitRequest(), "run": wanted}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where=where, hint=f"names: {', '.join(_BY_SHORT_NAME)}")
        stage: StageName = "run"
        for known in STAGES:
            if name.startswith(f"{known}."):
                stage, name = known, name.removeprefix(f"{known}.")
        limits[stage] = replace(limits[stage], **{_full_name(name, where=where): read_limit(name, value, where=where)})
    return limits


def read_limit(name: str, value: str, *, where: str) -> int | OutputMode:
    """Read one value as its setting is read, except for bare numbers (see above). Raises: InvalidRequest."""
    full_name = _full_name(name, where=where)
    row = ROWS[f"run_{full_name}"]
    allowed, unit = row.allowed, ""
    if name.replace("-", "_") != full_name:
        is_bare = _BARE.fullmatch(value) is not None
        if row.kind == "bytes":
            allowed = f"a size with its unit, like 256m or 1g, of at least {max(row.minimum, row.least)} bytes"
            if is_bare:
                hint = f"{value.strip()}m for MiB, {value.strip()}b for bytes"
                raise InvalidRequest(f"{value!r} has no unit; allowed: {allowed}", where=where, hint=hint)
        elif row.kind == "ms":
            allowed = "a time like 5s or 500ms; a number alone is seconds"
            unit = "s" if is_bare else ""
    try:
        read = row.read(f"{value.strip()}{unit}")
    except ValueError:
        raise InvalidRequest(f"{value!r} is not possible; allowed: {allowed}", where=where) from None
    return OutputMode(read) if isinstance(read, str) else int(str(read))


def _full_name(name: str, *, where: str) -> str:
    name = name.replace("-", "_")
    if name in LIMIT_NAMES:
        return name
    if name in _BY_SHORT_NAME:
        return _BY_SHORT_NAME[name]
    raise InvalidRequest(f"no limit is called {name!r}", where=where, hint=f"names: {', '.join(_BY_SHORT_NAME)}")
