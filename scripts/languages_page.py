"""docs/reference/languages.md: what the recipes make, and what `make test-languages` measured of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from firebox.packages.building.recipe import Recipe, all_recipes
from scripts.wrapping import wrapped

MEASURED = Path(__file__).resolve().parent.parent / "tests" / "languages" / "measured.json"

HEAD = """\
# Languages in packages

<!-- Written by `make docs` from src/firebox/recipes/ and tests/languages/measured.json: change it there. -->

Each row is a package. `firebox packages install haskell` fetches it from a [repository](../operate/repositories.md);
`firebox packages build haskell` [builds it](../develop/build-a-package.md) on this machine. Languages installed on the host come
on top: `firebox runtimes` lists both. A client may use any name of a language; the newest version that matches its range runs.
"""

UNVERIFIED = """\

## Built from what you supply

These need files that neither Debian (bullseye to sid), PyPI nor npm had in November 2026. Each recipe names the files to
supply. The recipes are unverified: they have not been built with the real files. Set FIREBOX_LANGUAGES_SOURCES to a folder with
the files and `make test-languages` builds and runs them; otherwise it skips them and names the missing file.

| package | languages | obstacle | supply |
| --- | --- | --- | --- |
"""

RAN = """\

## Tests

`make test-languages` builds every package, installs it on an empty server, and runs eight programs through the native API and
Piston's: a hello with an emoji, input, arguments, two files, an exit status, a compile error, standard error, an endless loop.
Where the language supports it, the hello also runs in a [prestarted](../decisions/0009-started-ahead.md) interpreter. Each
command name of the language (`[commands]` in its [definition](../develop/add-a-language.md)) is run once. On {day} all
{count} packages above passed, built from the versions that Debian, PyPI and npm had that day.
"""

RAN_ON = "2026-11-30"

MEASURING = """\

## Measurements

Taken on {machines}, {days}.

* *MiB* is the size of the downloaded image without its base (Debian's essential packages, {base}), which all packages of a
  release share.
* *First* is the response time of the first hello after the package was installed, compiling included.
* *Again* is the median of five more, each compiled again; *× bash* is its ratio to a hello in bash.
* *Cached* is the response time when the compiled program comes from the [job cache](../operate/performance.md).

An empty cell was not measured. The machine was busy with other work: compare rows with each other rather than absolute times.

To measure again: `FIREBOX_LANGUAGES_MEASURE=1 make test-languages`, then `make docs`.
"""


def languages_page() -> str:
    """Return docs/reference/languages.md."""
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
    text = "\n| package | languages | version | also called | MiB | first, ms | again, ms | × bash | cached, ms |\n"
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
    """Yield the notes of recipes."""
    yield "\n## Notes\n\n"
    for recipe in recipes:
        if recipe.notes:
            yield wrapped(f"* `{recipe.name}`: {recipe.notes}", "  ") + "\n"


def _unverified(recipes: list[Recipe]) -> Iterator[str]:
    """Yield the table of unverified recipes, and the files that each needs."""
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
