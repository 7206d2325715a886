"""Deferred logging setup for commands that must start fast and rarely log."""

from __future__ import annotations

from firebox.engine.log import set_up_later


def set_up_logs_later(level: str, format_: str) -> None:
    """Call `logs.set_up_logs` when the first line is logged."""

    def set_up() -> None:
        from firebox.server.logs import set_up_logs

        set_up_logs(level, format_)

    set_up_later(set_up)
