"""docs/languages.md: what the recipes make, and what `make test-languages` measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firebox.packages.building.recipe import Recipe, all_recipes

MEASURED = Path(__file__).resolve().parent.parent / "tests" / "languages" / "measured.json"

HEAD = """\
# Languages in packages

<!-- Written by `make docs` from src/firebox/recipes/ and tests/languages/measured.json: change it there. -->

Each row is a package: `firebox packages install haskell` brings it from a [repository](repositories.md), `firebox packages
build haskell` [makes it](build-a-package.md) on this machine. What is installed on the host is a matter of its own: `firebox
runtimes` shows both. A client may ask for a language by each of its names; of several versions the newest that fits its range
runs.
"""

UNVERIFIED = """\

## Built from what you supply

No package registry has all of these: Debian (bullseye to sid), PyPI and npm were searched in November 2026. The recipes say
what to bring; nobody has tried them with it: they are not verified. `make test-languages` builds and runs them where
FIREBOX_LANGUAGES_SOURCES names a folder with what they want; elsewhere it skips them and says which file it misses.

| package | languages | what keeps it | supply |
| --- | --- | --- | --- |
"""

RAN = """\

## What was run

`make test-languages` builds every package, installs it on a machine that has none, and runs eight programs through the native
API and through Piston's: a hello with an emoji, input, arguments, two files, an exit status, a compile error, standard error, an
endless loop. It tries a hello that was [started ahead](decisions/0009-started-ahead.md) where a language can wait, and types
each name that a language offers (`[commands]` of its [definition](add-a-language.md)). On {day} all {count} packages above
passed, made of what Debian, PyPI and npm had then.
"""

RAN_ON = "2026-11-30"

MEASURING = """\

## How it was measured

On {machines}, {days}. The sizes are those of the image that is downloaded, its base (Debian's essential part, {base})
apart: all packages of a release share one. *First* is the time that a client waits for the answer to the
first hello after the server came to know the package, compiling included; *again* is the middle one of five more, each
compiled anew; *× bash* is that in hellos of bash; *kept* is what it takes when the server has [kept](performance.md) what
compiling made. An empty cell was not measured. Other work kept that machine busy meanwhile: compare the rows with each
other, not with a stopwatch.

Anew: `FIREBOX_LANGUAGES_MEASURE=1 make test-languages`, then `make docs`.
"""


def languages_page() -> str:
    """Write docs/languages.md, as Markdown."""
    recipes = all_recipes()
    measured = {(row["package"], row["series"], row["language"]): row for row in _measured()}
    verified = [recipe for recipe in recipes if recipe.verified]
    plain = [recipe for recipe in verified if recipe.rank is None or not recipe.aliases]
    variants = [recipe for recipe in verified if recipe not in plain]
    names = {definition.language for recipe in verified for definition in recipe.definitions()}
    text = HEAD + f"\n{len(names)} languages in {len(verified)} packages.\n"
    text += _table(plain, measured)
    if variants:
        text += "\n## Variants\n\nThe same languages with more in them; a client asks for them by their own names.\n"
        text += _table(variants, measured)
    text += "".join(_notes(verified))
    text += RAN.format(day=RAN_ON, count=len(verified))
    text += "".join(_unverified([recipe for recipe in recipes if not recipe.verified]))
    rows = list(measured.values())
    if rows:
        text += MEASURING.format(
            machines=_words(sorted({row["machine"] for row in rows})),
            days=_words(sorted({row["day"] for row in rows})),
            base=_words(sorted({f"{_mib(row['base_bytes'])} MiB" for row in rows if row.get("suite") == "trixie"})),
        )
    return text


def _table(recipes: list[Recipe], measured: dict[tuple[str, str, str], Any]) -> str:
    bash = next((row["warm_run_ms"] for row in measured.values() if row["language"] == "bash"), None)
    text = "\n| package | languages | version | also called | MiB | first, ms | again, ms | × bash | kept, ms |\n"
    text += "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
    for recipe in recipes:
        for number, definition in enumerate(recipe.definitions()):
            row = measured.get((recipe.package, recipe.series, definition.language))
            name = f"`{recipe.package}`" if number == 0 else ""
            aliases = dict.fromkeys([*definition.aliases, *recipe.aliases])
            cells = [name, f"`{definition.language}`", recipe.version, ", ".join(f"`{alias}`" for alias in aliases)]
            if row is None:
                cells += [""] * 5
            else:
                cells[2] = row["version"]
                cells += [
                    _mib(row["image_bytes"]) if number == 0 else "",
                    f"{row['first_run_ms']:.0f}",
                    f"{row['warm_run_ms']:.0f}",
                ]
                cells.append(f"{row['warm_run_ms'] / bash:.1f}" if bash else "")
                cells.append(f"{row['kept_run_ms']:.0f}" if row["kept_run_ms"] is not None else "")
            text += f"| {' | '.join(cells)} |\n"
    return text


def _notes(recipes: list[Recipe]) -> Iterator[str]:
    """Yield what recipes say about themselves."""
    yield "\n## Notes\n\n"
    for recipe in recipes:
        if recipe.notes:
            yield f"* `{recipe.name}`: {recipe.notes}\n"


def _unverified(recipes: list[Recipe]) -> Iterator[str]:
    """Tell of recipes that nobody could try here, and what each wants."""
    if not recipes:
        return
    yield UNVERIFIED
    for recipe in recipes:
        languages = ", ".join(f"`{definition.language}`" for definition in recipe.definitions())
        wanted = "<br>".join(f"`--source {each.name}=FILE`: {each.hint}" for each in recipe.supplied)
        yield f"| `{recipe.package}` | {languages} | {recipe.notes} | {wanted.replace('|', chr(92) + '|')} |\n"


def _measured() -> list[dict[str, Any]]:
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else []


def _mib(size_bytes: int) -> str:
    mib = size_bytes / (1 << 20)
    return f"{mib:.1f}" if mib < 10 else f"{mib:.0f}"


def _words(values: list[str]) -> str:
    return ", ".join(values)
