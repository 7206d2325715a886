"""Limits as a person types them: `5s`, `256m`, `processes=20`, `compile.wall=30s`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

from msgspec.structs import replace

from firebox.errors import InvalidRequest
from firebox.model import LimitRequest, OutputMode, StageName
from firebox.settings_table import LIMIT_NAMES, ROWS

_UNIT = re.compile(r"_(ms|bytes)$")
_BY_SHORT_NAME = {_UNIT.sub("", name): name for name in LIMIT_NAMES}


def read_limits(words: Iterable[str], wanted: LimitRequest) -> dict[StageName, LimitRequest]:
    """Read `[compile.|run.]name=value` words, above what is `wanted` for the run stage already.

    The name may lack its unit, and the stage is `run` when none is said.
    Raises: InvalidRequest.
    """
    limits: dict[StageName, LimitRequest] = {"compile": LimitRequest(), "run": wanted}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidRequest(f"{word!r} is not NAME=VALUE", where="--limit", hint=f"names: {', '.join(_BY_SHORT_NAME)}")
        stage: StageName = "run"
        for known in get_args(StageName):
            if name.startswith(f"{known}."):
                stage, name = known, name.removeprefix(f"{known}.")
        limits[stage] = replace(limits[stage], **{_full_name(name): read_limit(name, value, where="--limit")})
    return limits


def read_limit(name: str, value: str, *, where: str) -> int | OutputMode:
    """Read one value as its setting is read.

    Raises: InvalidRequest.
    """
    row = ROWS[f"run_{_full_name(name)}"]
    try:
        read = row.read(value)
    except ValueError:
        raise InvalidRequest(f"{value!r} is not possible; allowed: {row.allowed}", where=where) from None
    return OutputMode(read) if isinstance(read, str) else int(str(read))


def _full_name(name: str) -> str:
    name = name.replace("-", "_")
    if name in LIMIT_NAMES:
        return name
    if name in _BY_SHORT_NAME:
        return _BY_SHORT_NAME[name]
    raise InvalidRequest(f"no limit is called {name!r}", where="--limit", hint=f"names: {', '.join(_BY_SHORT_NAME)}")
