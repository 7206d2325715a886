"""Log lines of commands that are to be quick and mostly have none."""

from __future__ import annotations

from firebox.engine.log import set_up_later


def set_up_logs_later(level: str, format_: str) -> None:
    """Do as `logs.set_up_logs` when there is something to say."""

    def set_up() -> None:
        from firebox.server.logs import set_up_logs

        set_up_logs(level, format_)

    set_up_later(set_up)
