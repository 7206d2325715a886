"""Logs on stderr: one event per line, as text or JSON. Control characters are escaped, so no value can forge a line."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

from firebox.server.absent_modules import absent

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PLAIN = re.compile(r"[^\s=\"\\]+")


def set_up_logs(level: str, format_: str) -> None:
    """Configure logging to stderr for this process and its libraries. format_: "text" or "json"."""
    with absent("rich", "rich.pretty", "rich.traceback"):  # log lines are plain text
        import structlog

    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _render_json if format_ == "json" else _render_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Bridge()], force=True)


def escape(text: str) -> str:
    """Escape control characters and lone surrogates."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _render_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return json.dumps(event, default=str)


def _render_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return `time level event key=value`; the lines of a traceback follow, each prefixed with a bar."""
    exception = str(event.pop("exception", ""))
    head = f"{event.pop('timestamp')} {event.pop('level'):<8} {escape(str(event.pop('event')))}"
    words = [head, *(f"{key}={_value(value)}" for key, value in event.items())]
    lines = [" ".join(words), *(f"    | {escape(line)}" for line in exception.splitlines())]
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, int | float):
        return str(value)
    text = escape(str(value))
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _Bridge(logging.Handler):
    """Forwards records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        import structlog

        level, exception = record.levelno, record.exc_info
        if record.name.startswith("uvicorn") and exception is not None and isinstance(exception[1], UnicodeDecodeError):
            # The client sent invalid UTF-8: its own mistake, not worth a traceback.
            level, exception = logging.INFO, None
        structlog.get_logger(record.name).log(level, record.getMessage().strip(), exc_info=exception)
