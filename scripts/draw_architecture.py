"""Draw docs/concepts/floors.svg: the parts of src/firebox by floor, and how often each imports each, read from the code."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.svg import ACCENT, AMBER, BLUE, GREEN, GREY, QUIET, ROSE, Drawing

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "firebox"

PURPOSE = {
    "cli": "commands: run, serve, packages, users, doctor ...",
    "bench": "measures Firebox against bare programs",
    "server": "one process: HTTP, gRPC, logs, metrics",
    "doors": "one protocol each: messages, routes, description",
    "service": "use cases, permissions, quotas; no protocol",
    "engine": "admission, stages, events, results, job cache",
    "packages": "repositories, downloads, installing, building",
    "storage": "SQLite or PostgreSQL; memory or Redis",
    "runtimes": "what can run here: definitions, toolchains",
    "files": "untrusted archives and folders",
    "recipes": "what packages are built from: data, no code",
    "settings": "names, units, defaults; other systems' names",
    "domain": "jobs, results, events, errors, as types",
    "sandbox": "isolated processes; standard library only",
}
"""A line for each part, which only people can write."""

FILLS = (GREY, ROSE, AMBER, GREEN, BLUE)
STEP_X, STEP_Y, BOX_WIDTH, BOX_HEIGHT, TOP, LEFT = 62, 54, 96, 36, 56, 70


def floors() -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    """Return FLOORS and ROOMS of tests/test_tree.py, which holds imports to them."""
    found: dict[str, Any] = {}
    for node in ast.parse((ROOT / "tests" / "test_tree.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in ("FLOORS", "ROOMS"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found["FLOORS"], found["ROOMS"]


def imports() -> Counter[tuple[str, str]]:
    """Count the imports from part to part, those inside of functions included."""
    counted: Counter[tuple[str, str]] = Counter()
    for path in (path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "recipes")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            others = (name.split(".")[1] for name in names if name.startswith("firebox.") and name != "firebox.__version__")
            counted.update((part, other) for other in others if other != part)
    return counted


def architecture() -> str:
    """Return the picture. A part's imports run down from its box, and to the right into the part that is imported."""
    floor_of, rooms = floors()
    parts = [part for part in sorted(floor_of, key=lambda part: -floor_of[part]) if part != "__main__"]
    counted = imports()
    # The text beside a box takes some six pixels a character.
    ends = (STEP_X * row + 6 * max(len(PURPOSE[part]), len(_inner(part, rooms))) for row, part in enumerate(parts))
    width = LEFT + BOX_WIDTH + 30 + max(ends)
    drawing = Drawing(width, TOP + STEP_Y * len(parts) + 14, "The parts of Firebox by floor, and their imports")
    drawing.text(LEFT, 24, "The parts of src/firebox by floor: imports only go down", size=16, bold=True)
    drawing.text(
        LEFT,
        42,
        "Each number counts how often the part above imports from the part to the right. a < b: b may import a.",
        size=12,
        ink=QUIET,
    )
    place = {part: (LEFT + STEP_X * row, TOP + STEP_Y * row) for row, part in enumerate(parts)}
    _draw_floors(drawing, parts, floor_of, width)
    for part, (x, y) in place.items():
        below = [other for other in parts if counted[part, other]]
        if below:
            start = (x + 22, y + BOX_HEIGHT + 6)
            drawing.line(start, (start[0], place[below[-1]][1] + 24), ink=QUIET)
        importers = [other for other in parts if counted[other, part]]
        if importers:
            drawing.line((place[importers[0]][0] + 22, y + 24), (x, y + 24), arrow=True)
    for (part, other), count in sorted(counted.items()):
        if part in place and other in place:
            x, y = place[part][0] + 22, place[other][1] + 24
            drawing.dot(x, y, 2.5, fill=ACCENT)
            drawing.text(x + 5, y - 5, str(count), size=11, ink=ACCENT)
    for part, (x, y) in place.items():
        drawing.box(x, y + 6, BOX_WIDTH, BOX_HEIGHT, fill=FILLS[floor_of[part] % len(FILLS)])
        drawing.text(x + BOX_WIDTH / 2, y + 29, part, bold=True, anchor="middle")
        inner = _inner(part, rooms)
        drawing.text(x + BOX_WIDTH + 10, y + (20 if inner else 28), PURPOSE[part], size=12)
        if inner:
            drawing.text(x + BOX_WIDTH + 10, y + 36, inner, size=11, ink=QUIET)
    return drawing.svg()


def _draw_floors(drawing: Drawing, parts: list[str], floor_of: dict[str, int], width: int) -> None:
    for row, part in enumerate(parts):
        y = TOP + STEP_Y * row
        if row == 0 or floor_of[parts[row - 1]] != floor_of[part]:
            drawing.line((12, y), (width - 12, y), ink="#d6dde5")
            drawing.text(14, y + 29, str(floor_of[part]), size=18, bold=True, ink=QUIET)


def _inner(part: str, rooms: dict[str, tuple[str, ...]]) -> str:
    """Name the rooms of a part: in their order, or else its folders."""
    if part in rooms:
        return " < ".join(rooms[part])
    folder = PACKAGE / part
    names = sorted(path.name for path in folder.iterdir() if (path / "__init__.py").is_file())
    return " · ".join(names)


def main() -> None:
    (ROOT / "docs" / "concepts" / "floors.svg").write_text(architecture(), encoding="utf-8")


if __name__ == "__main__":
    main()
