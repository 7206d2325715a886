"""Runtime detection in a root: a shell script that runs inside, and the parser of its results.

It asks the same questions as host detection (`runtimes.host_runtimes`), but in plain shell, because a root may lack Python or
have a different architecture.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from firebox.domain.errors import BuildFailed
from firebox.packages.building.layer import BUILDING
from firebox.runtimes.build_runtime import make_runtime
from firebox.runtimes.definition import Definition, Tool
from firebox.runtimes.host_folders import UnusableToolError, prefix_of
from firebox.runtimes.host_tools import read_version
from firebox.runtimes.runtime import Runtime

PREPARED = "/opt/firebox/prepared"
FOUND = f"/{BUILDING}/found"

ANSWER_TIMEOUT_S = 60
PREPARATION_TIMEOUT_S = 900

_FUNCTIONS = rf"""
PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 LC_ALL=C.UTF-8 HOME=/{BUILDING}/home
export PATH LANG LC_ALL HOME
mkdir -p {FOUND} "$HOME"
cd "$HOME"

is_program() {{ [ -f "$1" ] && [ -x "$1" ]; }}

is_compiled() {{ [ "$(head -c 4 "$1" | od -An -tx1 | tr -d ' \n')" = 7f454c46 ]; }}

# candidates FOLDER NAME...: programs of these names, in FOLDER (or nothing) before the usual ones.
candidates() {{
    first=$1
    shift
    for name in "$@"; do
        for place in $first /usr/local/bin /usr/bin /bin; do
            for file in "$place"/$name; do
                is_program "$file" || continue
                case $name in *[*?[]*) is_compiled "$file" || continue ;; esac
                printf '%s\n' "$file"
            done
        done
    done
}}

# may_be_shim CANDIDATE REAL
may_be_shim() {{
    case $2 in /usr/*) ;; *) return 0 ;; esac
    case ${{2##*/}} in *"${{1##*/}}"*) ;; *) case ${{1##*/}} in *"${{2##*/}}"*) ;; *) return 0 ;; esac ;; esac
    [ "$(head -c 2 "$2")" = '#!' ]
}}

# real_program CANDIDATE BEFORE AFTER LOCATE...: the program behind a link or a shim.
real_program() {{
    candidate=$1 before=$2 after=$3
    shift 3
    real=$(readlink -f "$candidate") || return 1
    if [ $# -gt 0 ] && may_be_shim "$candidate" "$real"; then
        line=$(timeout {ANSWER_TIMEOUT_S} "$candidate" "$@" </dev/null 2>/dev/null | head -n 1)
        located=$(readlink -f "$before$line$after")
        is_program "$located" || return 1
        if [ "$located" != "$real" ]; then
            printf '%s\n' "$located"
            return
        fi
    fi
    case $real in /usr/*) printf '%s\n' "$candidate" ;; *) printf '%s\n' "$real" ;; esac
}}

# folder_of and prefix_of a program
folder_of() {{ dirname "$(readlink -f "$1")"; }}

prefix_of() {{
    folder=$(folder_of "$1")
    case ${{folder##*/}} in bin | sbin) dirname "$folder" ;; *) printf '%s\n' "$folder" ;; esac
}}

# offer NAME PROGRAM: make NAME a command unless it is one, where there is such a program.
offer() {{
    if ! command -v "$1" > /dev/null && is_program "$2"; then ln -s "$2" "/usr/local/bin/$1"; fi
}}
"""


def probe_script(definitions: Sequence[Definition], epoch: int) -> str:
    """Return the script, which creates a numbered folder in `FOUND` for each definition. epoch: SOURCE_DATE_EPOCH."""
    return _FUNCTIONS + "".join(_detection_script(number, definition, epoch) for number, definition in enumerate(definitions))


def read_probe_results(folder: Path, definitions: Sequence[Definition]) -> list[Runtime]:
    """Create the runtimes from the results of the script. folder: a copy of `FOUND`. Raises: BuildFailed."""
    return [_runtime(folder / str(number), definition) for number, definition in enumerate(definitions)]


def prepared_folder(definition: Definition) -> str:
    """Return the path of `{prepared}` of a definition in the root."""
    return f"{PREPARED}/{definition.language}"


def _runtime(folder: Path, definition: Definition) -> Runtime:
    problems = _read(folder / "problems")
    if problems or not (folder / "tool").is_file():
        words = problems or _read(folder / "failures") or f"there is no {' or '.join(definition.detect.programs)} in the root"
        raise BuildFailed(f"{definition.language} does not work in the built package", hint=words[-1500:])
    tool, real = Path(_read(folder / "tool")), Path(_read(folder / "real"))
    try:
        version = read_version(definition.detect, _read(folder / "version"))
    except UnusableToolError as error:
        raise BuildFailed(f"{definition.language}: cannot determine the version of {tool}: {error}") from None
    values = {"tool": str(tool), "prefix": str(prefix_of(real)), "folder": str(real.parent)}
    values["prepared"] = prepared_folder(definition) if definition.prepare else "/nonexistent"
    tools = [tool]
    for name in definition.tools:
        values[name] = _read(folder / f"tool-{name}")
        tools.append(Path(values[name]))
    return make_runtime(definition, version, values, tools)


def _read(file: Path) -> str:
    try:
        return file.read_bytes()[: 1 << 20].decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _detection_script(number: int, definition: Definition, epoch: int) -> str:
    """Return the detection script of one definition. Placeholders become shell variables with the prefix `value_`."""
    detect = definition.detect
    place = f"{FOUND}/{number}"
    known = {"tool": "$value_tool", "prefix": "$value_prefix", "folder": "$value_folder", "prepared": "$value_prepared"}
    words = [_expand(word, known) for word in detect.command] or ['"$value_tool"', *map(shlex.quote, detect.version)]
    file = _expand(detect.file, known) if detect.file else "''"
    lines = [
        "",
        f"mkdir -p {place}",
        f"value_prepared={shlex.quote(prepared_folder(definition))}",
        f"candidates '' {shlex.join(detect.programs)} > {place}/candidates",  # which expands patterns itself
        "while IFS= read -r candidate <&3; do",
        f'    value_tool=$(real_program "$candidate" {_locate_arguments(detect)}) || continue',
        '    value_folder=$(folder_of "$value_tool") value_prefix=$(prefix_of "$value_tool")',
        f"    if [ -f {file} ]; then",
        f"        cat {file} > {place}/version || continue",
        "    else",
        f"        printf %s {shlex.quote(detect.stdin)} > {place}/stdin",
        f"        timeout {ANSWER_TIMEOUT_S} {' '.join(words)} < {place}/stdin > {place}/stdout 2> {place}/stderr 3<&- || {{",
        f'            echo "$value_tool failed with status $?" >> {place}/failures',
        f"            tail -n 10 {place}/stderr >> {place}/failures",
        "            continue",
        "        }",
        f"        {{ cat {place}/stdout; echo; cat {place}/stderr; }} > {place}/version",
        "    fi",
        f'    printf %s "$value_tool" > {place}/tool',
        f'    readlink -f "$value_tool" > {place}/real',
        "    break",
        f"done 3< {place}/candidates",
        f"if [ -f {place}/tool ]; then",
        "    :",
    ]
    for name in definition.tools:
        tool = definition.tool(name)
        lines += [
            f"    value_{name}=",
            f'    for candidate in $(candidates "$value_folder" {shlex.join(tool.programs)}); do',
            f'        value_{name}=$(real_program "$candidate" {_locate_arguments(tool)}) && break',
            "    done",
            f'    printf %s "$value_{name}" > {place}/tool-{name}',
            f'    [ -n "$value_{name}" ] || echo {shlex.quote(f"there is no {tool.programs[0]}")} >> {place}/problems',
        ]
        known[name] = f"$value_{name}"
    lines += [f"    offer {name} {_expand(program, known)}" for name, program in definition.commands.items()]
    lines += [f"    {line}" for line in _preparation(place, definition, known, epoch)]
    return "\n".join([*lines, "fi", ""])


def _preparation(place: str, definition: Definition, known: Mapping[str, str], epoch: int) -> list[str]:
    if not definition.prepare:
        return []
    work = f"{place}/work"
    lines = [f'mkdir -p {work} "$value_prepared"']
    lines += [
        f"printf %s {shlex.quote(content)} > {work}/{shlex.quote(name)}" for name, content in definition.prepare_files.items()
    ]
    environment = f'PATH="$PATH" HOME={work} TMPDIR={work} LANG=C.UTF-8 SOURCE_DATE_EPOCH={epoch} PREPARED="$value_prepared"'
    for step in definition.prepare:
        words = " ".join(_expand(word, known) for word in step)
        lines.append(
            f"(cd {work} && exec env -i {environment} timeout {PREPARATION_TIMEOUT_S} {words}) > {place}/said 2>&1 3<&-"
            f" || {{ echo preparing failed; tail -n 20 {place}/said; }} >> {place}/problems"
        )
    return lines


def _locate_arguments(tool: Tool) -> str:
    before, _, after = tool.executable.partition("{located}")
    return shlex.join((before, after, *tool.locate))


def _expand(word: str, known: Mapping[str, str]) -> str:
    """Quote a command word for the shell, with placeholders replaced by variables."""
    parts = re.split(r"\{(" + "|".join(map(re.escape, known)) + r")\}", word)  # names are at the odd places
    quoted = [f'"{known[part]}"' if place % 2 else shlex.quote(part) for place, part in enumerate(parts) if part]
    return "".join(quoted) or "''"
