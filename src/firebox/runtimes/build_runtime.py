"""Creates runtimes from definitions and the tools that were found, by filling in placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from firebox.runtimes.definition import Definition, fill
from firebox.runtimes.host_folders import STANDARD_FOLDERS
from firebox.runtimes.runtime import CompilerAhead, Runtime, Toolchain
from firebox.sandbox.plan.mounts import shown_at


def make_runtime(
    definition: Definition,
    version: str,
    values: Mapping[str, str],
    tools: Sequence[Path],
    mounts: Sequence[str] = (),
    commands_folder: Path | None = None,
) -> Runtime:
    """Create a runtime.

    version: SemVer. values: placeholders such as `tool` and `prefix`. tools: the programs; those of their folders that are not on
    the default PATH are prepended to it. mounts: folders of the host to show. commands_folder: further commands, appended to
    PATH.
    """
    ahead = definition.compile_ahead
    env = {name: fill(value, values) for name, value in definition.env.items()}
    own = own_folders(tools)
    if own or commands_folder is not None:
        last = [shown_at(str(commands_folder))] if commands_folder is not None else []
        env.setdefault("PATH", ":".join([*own, *STANDARD_FOLDERS, *last]))
    fields: dict[str, Any] = {name: getattr(definition, name) for name in Toolchain.__struct_fields__}
    fields |= {
        "compile": tuple(_fill_words(step, values) for step in definition.compile),
        "run": _fill_words(definition.run, values),
        "run_with_others": _fill_words(definition.run_with_others, values),
        "env": env,
        "compile_env": {name: fill(value, values) for name, value in definition.compile_env.items()},
        "compile_ahead": ahead and CompilerAhead(ahead.hook, _fill_words(ahead.command, values)),
        "commands": commands_of(definition, values),
    }
    return Runtime(
        **fields,
        version=version,
        compile_limits=definition.limits("compile"),
        run_limits=definition.limits("run"),
        mounts=tuple(mounts),
        cache=definition.cache or ("binary" if definition.compile else "none"),
    )


def own_folders(tools: Sequence[Path]) -> list[str]:
    """Return the folders of tools that are not on the default PATH."""
    return [folder for folder in dict.fromkeys(str(tool.parent) for tool in tools) if folder not in STANDARD_FOLDERS]


def commands_of(definition: Definition, values: Mapping[str, str]) -> dict[str, str]:
    """Return the commands for shells, and the programs they run."""
    return {name: fill(program, values) for name, program in definition.commands.items()}


def _fill_words(words: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(fill(word, values) for word in words)
