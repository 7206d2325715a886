"""The tree itself: floors, what must not be in it, and pages that are made from it. `scripts/check` is the rest of it."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.write_docs import DOCS, PAGES
from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "firebox"
NOT_OURS = {".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__", "node_modules", "build", "dist"}

FLOORS = {
    "sandbox": 1,
    "domain": 2,
    "settings": 3,
    "recipes": 3,
    "files": 4,
    "runtimes": 4,
    "storage": 4,
    "packages": 5,
    "engine": 5,
    "service": 6,
    "doors": 7,
    "server": 8,
    "bench": 9,
    "cli": 10,
    "__main__": 11,
}
"""Every part of the package by its floor: a part imports only from floors below its own. Source: ARCHITECTURE.md."""

ROOMS = {
    "sandbox": ("spec", "protocol", "plan", "instance", "launcher", "pool"),
    "packages": ("entry", "versions", "machine", "file_locks", "repository", "download", "installed", "publishing", "building"),
}
"""Parts that have floors of their own: a room imports only from the rooms before it."""

MANY_TIMES = {"__init__", "wire", "routes"}
"""Module names that several folders may use: every door has these two."""


def files_of_the_tree() -> Iterator[Path]:
    """Yield every file that could be committed."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - NOT_OURS)
        yield from (Path(folder) / name for name in sorted(names))


def text_of(path: Path) -> str:
    """The text of a file, or "" for one that holds none."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name. What recipes hold are programs of others."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "recipes")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, *, top_only: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything a module imports; `from a import b` gives `a.b`.

    top_only: leave out what functions import when they run.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_every_module_has_its_floor() -> None:
    parts = {name.split(".")[1] for name in modules() if "." in name}
    assert parts <= FLOORS.keys(), "new parts belong in FLOORS and in ARCHITECTURE.md"


def test_imports_only_go_down() -> None:
    wrong: list[str] = []
    for name, path in modules().items():
        part = name.partition(".")[2].partition(".")[0]
        if part not in FLOORS:
            continue
        for line, imported in imports_of(path):
            if not imported.startswith("firebox.") or imported == "firebox.__version__":
                continue
            other = imported.split(".")[1]
            assert other in FLOORS, f"{path.relative_to(ROOT)}:{line}: {imported}"
            if part != other and FLOORS[other] >= FLOORS[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} (floor {FLOORS[part]}) imports {imported}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("part", ROOMS)
def test_rooms_import_only_from_rooms_before_them(part: str) -> None:
    order = ROOMS[part]
    wrong: list[str] = []
    for name, path in modules().items():
        if not name.startswith(f"firebox.{part}."):
            continue
        own = order.index(name.split(".")[2])
        for line, imported in imports_of(path):
            parts = imported.split(".")
            if parts[:2] == ["firebox", part] and order.index(parts[2]) > own:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_have_the_same_name() -> None:
    places: dict[str, list[str]] = {}
    for name, path in modules().items():
        places.setdefault(path.stem, []).append(name)
    assert not {word: names for word, names in places.items() if len(names) > 1 and word not in MANY_TIMES}


def test_doors_never_import_each_other() -> None:
    doors = {folder.name for folder in (PACKAGE / "doors").iterdir() if folder.is_dir()} - NOT_OURS - {"http"}
    wrong: list[str] = []
    for path in sorted((PACKAGE / "doors").rglob("*.py")):
        own = path.relative_to(PACKAGE / "doors").parts[0]
        for line, imported in imports_of(path):
            parts = imported.split(".")
            if parts[:2] == ["firebox", "doors"] and parts[2] in doors - {own}:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {imported}")
    assert not wrong, "\n".join(wrong)


def test_sandbox_needs_only_the_standard_library() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {imported}"
        for path in sorted((PACKAGE / "sandbox").rglob("*.py"))
        for line, imported in imports_of(path)
        if imported.split(".")[0] not in sys.stdlib_module_names and not imported.startswith("firebox.sandbox")
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_form_no_circle() -> None:
    known = modules()
    graph = {
        name: {
            target
            for _, imported in imports_of(path, top_only=True)
            for target in (imported, imported.rpartition(".")[0])
            if target in known and target not in (name, "firebox")
        }
        for name, path in known.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "circle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_packages_hold_no_code() -> None:
    wrong: list[str] = []
    for path in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            version = isinstance(node, ast.Assign) and path.parent == PACKAGE
            if not docstring and not version:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


# The patterns are spelled so that this file does not match them itself.
FORBIDDEN = {
    "a package registry's host": r"(p[y]pi|python[h]osted|npm[j]s|crat[e]s|d[e]bian)\.(org|io|com)"
    r"|pr[o]xy\.golang|registry\.n[p]m|rep[o]1?\.maven",
    "a path of somebody's machine": r"/w[o]rk/|/tmp/ven[v]\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_tree_names_no(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files_of_the_tree()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [f"requirements{what}.lock" for what in ("", "-dev", "-build", "-compiler")])
def test_lock_files_pin_by_hash_and_say_nothing_of_where_from(name: str) -> None:
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        assert re.match(r"\s*#|[a-z0-9._-]+(\[[a-z,]+\])?==\S+( ;.*)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line), (
            f"{name}:{number}: {line}"
        )
        assert "://" not in line, f"{name}:{number}: {line}"


def links_of(page: Path) -> list[str]:
    """The links of a page, and the pictures that it shows. What stands in code is shown, not linked."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text_of(page), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    wrong: list[str] = []
    for path in files_of_the_tree():
        if path.suffix != ".md":
            continue
        for link in links_of(path):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            if not target.exists() or (anchor and anchor not in anchors_of(target)):
                wrong.append(f"{path.relative_to(ROOT)}: {link}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_the_index() -> None:
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(DOCS / "README.md")}
    pages = {path for path in DOCS.rglob("*.md") if path.parent.name != "decisions"} - {DOCS / "README.md"}
    assert not [str(path.relative_to(DOCS)) for path in sorted(pages - linked)]


def test_lines_of_pages_are_short() -> None:
    """A row of a table cannot be broken."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in files_of_the_tree()
        if path.suffix == ".md"
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if len(line) >= 160 and not line.startswith("|")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"
