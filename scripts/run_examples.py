"""Run every program in examples/ through `firebox run` and print output, verdict, times and memory.

The exit status is 1 when a verdict is not the expected one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
FIREBOX = Path(sys.executable).parent / "firebox"


@dataclass(frozen=True)
class Example:
    """A program, the host tool it needs, and its expected verdicts."""

    file: str
    tool: str
    verdicts: tuple[str, ...] = ("ok",)


EXAMPLES = (
    Example("hello.py", "python3"),
    Example("hello.sh", "bash"),
    Example("hello.c", "gcc"),
    Example("hello.js", "node"),
    Example("Hello.java", "javac"),
    Example("limits/endless.py", "python3", ("wall_time", "cpu_time")),
    Example("limits/hungry.py", "python3", ("memory",)),
    Example("limits/crowd.py", "python3"),
)


def run(example: Example) -> dict[str, Any]:
    """Return the result object of `firebox run --json`.

    Raises: SystemExit with the command's output when there is none.
    """
    command = [str(FIREBOX), "run", "--json", str(ROOT / "examples" / example.file)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"{' '.join(command)} returned no result (exit status {done.returncode}):\n{done.stdout}{done.stderr}")
    return result


def output_of(result: dict[str, Any]) -> str:
    """Return everything the compiler and the program wrote."""
    stages = [stage for stage in (result["compile"], result["run"]) if stage]
    return "".join(stage["stdout"] + stage["stderr"] for stage in stages).rstrip()


def milliseconds(value: float) -> str:
    """Return a time with at most three significant digits."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def panel(example: Example, result: dict[str, Any]) -> Panel:
    """Return the output in a frame with the names of program and runtime, and the reason below if there is one."""
    runtime = f"{result['runtime']['language']} {result['runtime']['version']}"
    title = f"examples/{example.file} · {runtime}"
    return Panel(
        escape(output_of(result)),
        title=title,
        title_align="left",
        subtitle=escape(result["reason"]) or None,
        subtitle_align="left",
    )


def row(example: Example, result: dict[str, Any]) -> list[str]:
    """Return the cells of the summary."""
    compile_stage, run_stage = result["compile"], result["run"]
    last = run_stage or compile_stage
    mark = "[green]✔[/]" if result["verdict"] in example.verdicts else "[red]✘[/]"
    return [
        f"{mark} {example.file}",
        result["verdict"],
        milliseconds(compile_stage["wall_ms"]) if compile_stage else "",
        milliseconds(last["wall_ms"]),
        milliseconds(last["cpu_ms"]),
        f"{last['memory_peak_bytes'] / 2**20:.1f} MiB",
    ]


def main() -> int:
    console = Console()
    table = Table(title="Summary", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in ("program", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("compile", "run", "CPU", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    wrong = 0
    for example in EXAMPLES:
        if shutil.which(example.tool) is None:
            table.add_row(f"  {example.file}", f"[dim]no {example.tool}[/]")
            continue
        result = run(example)
        console.print(panel(example, result))
        table.add_row(*row(example, result))
        wrong += result["verdict"] not in example.verdicts
    console.print(table)
    curl = "" if shutil.which("curl") else "  apt-get install curl\n"
    console.print(
        "[bold]Next[/]: run your own program, a file or a folder:\n"
        "  .venv/bin/firebox run examples/hello.py\n"
        "Start a server for clients of Firebox, Piston, glot-run, grounds-exec and Runner:\n"
        "  .venv/bin/firebox serve\n"
        f"and send it a request from another terminal:\n{curl}"
        "  curl -s http://127.0.0.1:2000/api/v2/execute -H 'content-type: application/json' \\\n"
        """    -d '{"language": "python", "version": "*", "files": [{"content": "print(6 * 7)"}]}'\n"""
        "Check what this machine can isolate: .venv/bin/firebox doctor",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
