"""Creates runtimes from definitions and the tools that were found, by filling in placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from firebox.runtimes.definition import Definition, fill
from firebox.runtimes.host_folders import STANDARD_FOLDERS
from firebox.runtimes.runtime import CompilerAhead, Runtime
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
    env = {name: fill(value, values) for name, value in definition.env.items()}
    own = own_folders(tools)
    if own or commands_folder is not None:
        last = [shown_at(str(commands_folder))] if commands_folder is not None else []
        env.setdefault("PATH", ":".join([*own, *STANDARD_FOLDERS, *last]))
    return Runtime(
        language=definition.language,
        version=version,
        aliases=tuple(definition.aliases),
        extensions=tuple(definition.extensions),
        main_name=definition.main_name,
        compile=tuple(tuple(fill(word, values) for word in step) for step in definition.compile),
        compile_args=tuple(definition.compile_args),
        run=tuple(fill(word, values) for word in definition.run),
        run_with_others=tuple(fill(word, values) for word in definition.run_with_others),
        env=env,
        compile_env={name: fill(value, values) for name, value in definition.compile_env.items()},
        compile_limits=definition.limits("compile"),
        run_limits=definition.limits("run"),
        mounts=tuple(mounts),
        package=definition.package,
        rank=definition.rank,
        cache=definition.cache or ("binary" if definition.compile else "none"),
        ahead=definition.ahead,
        compile_ahead=_fill_compiler(definition.compile_ahead, values),
        needs_extension=definition.needs_extension,
        byte_order_mark=definition.byte_order_mark,
        name_pattern=definition.name_pattern,
        commands=commands_of(definition, values),
    )


def own_folders(tools: Sequence[Path]) -> list[str]:
    """Return the folders of tools that are not on the default PATH."""
    return [folder for folder in dict.fromkeys(str(tool.parent) for tool in tools) if folder not in STANDARD_FOLDERS]


def commands_of(definition: Definition, values: Mapping[str, str]) -> dict[str, str]:
    """Return the commands for shells, and the programs they run."""
    return {name: fill(program, values) for name, program in definition.commands.items()}


def _fill_compiler(template: CompilerAhead | None, values: Mapping[str, str]) -> CompilerAhead | None:
    if template is None:
        return None
    return CompilerAhead(template.hook, tuple(fill(word, values) for word in template.command))
