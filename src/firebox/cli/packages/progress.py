"""Progress display on standard error: bars on a terminal, otherwise a line for each step."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from firebox.cli.packages.output_tables import format_size
from firebox.packages.entry import Progress, Report, Step
from firebox.server.logs import escape

STEP_LABELS: dict[Step, str] = {
    "index": "reading the index",
    "download": "downloading",
    "verify": "verifying",
    "unpack": "unpacking",
    "environment": "evaluating the environment",
    "install": "installing",
    "uninstall": "removing",
    "build": "building",
}
MAX_MESSAGE_CHARS = 60
_LAST: frozenset[Step] = frozenset({"install", "uninstall"})
"""The final steps of a package."""


@contextmanager
def show_progress() -> Generator[Report]:
    """Yield a progress callback that displays progress within the context."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, style="bold"),
        _StepColumn(Column(no_wrap=True)),
        BarColumn(bar_width=24),
        _DetailColumn(Column(no_wrap=True)),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)


class _Lines:
    """Prints a line for each change of a package's step or message."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[Step, str]] = {}
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if self._said.get(progress.package) == (progress.step, progress.words):
                return
            self._said[progress.package] = (progress.step, progress.words)
            words = progress.words or STEP_LABELS[progress.step]
            size = f" {format_size(progress.total)}" if progress.step == "download" and progress.total else ""
            print(escape(f"{progress.package}: {words}{size}"), file=sys.stderr, flush=True)


class _Bars:
    """Shows a bar for each package, reset at each step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, tuple[TaskID, Step]] = {}
        self._lock = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        if progress.step == "index" and progress.words:
            # Index warnings must remain visible.
            self._bars.console.print(Text(escape(f"{progress.package}: {progress.words}")))
            return
        with self._lock:
            task, step = self._tasks.pop(progress.package, (None, None))
            finished = progress.step in _LAST and 0 < progress.total <= progress.done
            if task is not None and (finished or step != progress.step):
                self._bars.remove_task(task)
                task = None
            if finished:
                return
            if task is None:
                task = self._bars.add_task(escape(progress.package), total=None, step=progress.step, words="")
            self._tasks[progress.package] = task, progress.step
        if progress.words:
            self._bars.update(task, words=escape(progress.words)[:MAX_MESSAGE_CHARS])
        self._bars.update(task, total=progress.total or None, completed=progress.done)


class _StepColumn(ProgressColumn):
    """The current step."""

    def render(self, task: Task) -> Text:
        step: Step = task.fields["step"]
        return Text(STEP_LABELS[step] if step in {"build", "download"} else task.fields["words"] or STEP_LABELS[step])


class _DetailColumn(ProgressColumn):
    """For a download, its size and speed; for a build, the latest output line."""

    def render(self, task: Task) -> Text:
        step: Step = task.fields["step"]
        if step not in {"download", "build"}:
            return Text("")
        if step == "build" or not task.completed:
            return Text(task.fields["words"], style="dim")
        amount = format_size(int(task.completed))
        if task.total:
            amount += f" of {format_size(int(task.total))}"
        if task.speed:
            amount += f"  {format_size(int(task.speed))}/s"
        return Text(amount)
