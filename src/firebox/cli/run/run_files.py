"""What `firebox run` runs: a main file, code from standard input or a folder, with further files; and the runtime for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from firebox.cli.run.run_flags import RunRequest
from firebox.domain.errors import InvalidRequest, UnknownRuntime
from firebox.domain.model import File
from firebox.runtimes.definition import Definition
from firebox.runtimes.registry import Registry
from firebox.runtimes.runtime import Runtime
from firebox.runtimes.toolchain_cache import Preparation
from firebox.service.available_runtimes import find_definitions, find_runtimes
from firebox.settings.settings import Settings

FROM_STDIN = "-"
MAIN = "main"
_MOST_BYTES = 1 << 30
"""Limit on all files together. Runs have lower limits; this one keeps a wrong folder from filling the memory."""
_PIECE_BYTES = 1 << 20
_MOST_FILES = 5000
_SHOWN = 5


class Program(NamedTuple):
    """The program on the command line. main: the main file's name relative to `folder`, "" for standard input."""

    main: str
    folder: Path
    others: tuple[str, ...] = ()
    """Further files of a folder that runs as a whole."""

    @property
    def ending(self) -> str:
        return Path(self.main).suffix


def find_program(word: str, is_source: Callable[[str], bool], language: str | None = None) -> Program:
    """Find the main file. is_source: whether files with an extension may be meant; language: requested with --language.

    In a folder it is the file `main.<extension>`, in any case, or the only source file at the top level. Everything in the folder
    is included, except names that begin with a dot.
    Raises: InvalidRequest.
    """
    if word == FROM_STDIN:
        return Program("", Path())
    if not word:
        raise InvalidRequest("the name of the file is empty")
    path = Path(word)
    if not path.is_dir():
        return Program(path.name, path.parent)
    names = _names_below(path)
    sources = [name for name in names if "/" not in name and is_source(Path(name).suffix)]
    called_main = [name for name in sources if Path(name).stem.lower() == MAIN]
    found = called_main or sources
    if len(found) != 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        if found:
            problem, hint = f"several files may be its main file: {shown}", f"name one {MAIN}{Path(found[0]).suffix}, or pass it"
        elif language is not None:
            problem, hint = f"contains no file of {language}", "pass the main file"
        else:
            problem, hint = "contains no source file", "pass the main file, and its language with --language"
        raise InvalidRequest(f"{word}: {problem}", hint=hint)
    return Program(found[0], path, tuple(name for name in names if name != found[0]))


def choose_program(request: RunRequest, settings: Settings) -> tuple[Program, Runtime, Registry, list[Preparation]]:
    """Find the main file, its runtime, and the preparations for such runtimes. Raises: InvalidRequest, UnknownRuntime."""
    wanted = request.language.strip().lower() if request.language is not None else None
    if request.program == FROM_STDIN and wanted is None:
        raise InvalidRequest("code from standard input needs a language", where="--language", hint="such as --language python")

    def is_wanted(definition: Definition | Runtime) -> bool:
        return wanted in {name.lower() for name in (definition.language, *definition.aliases)}

    def is_source(ending: str) -> bool:
        known = find_definitions(settings, ending)
        return any(ending in each.extensions for each in known if wanted is None or is_wanted(each))

    program = find_program(request.program, is_source, request.language)
    if wanted is not None:
        scan = find_runtimes(settings, is_wanted, wanted)
    else:
        scan = find_runtimes(settings, lambda each: program.ending in each.extensions, program.ending)
    registry = Registry(scan.runtimes)
    if request.language is not None:
        name = request.language
    else:
        found = registry.by_extension(program.ending)
        name = found.language if found is not None else _language_of(program, settings)
    try:
        runtime = registry.resolve(name, request.version if request.version is not None else "*")
        return program, runtime, registry, scan.preparations
    except UnknownRuntime as error:
        if registry.all():
            raise
        raise _explained(error, settings) from None


def _explained(error: UnknownRuntime, settings: Settings) -> UnknownRuntime:
    """Return the error with a hint on how to install the language, or which languages are available."""
    from firebox.runtimes.install_hints import installing_hint

    hint = installing_hint(error.selector, find_definitions(settings))
    if not hint:
        try:
            Registry(find_runtimes(settings).runtimes).resolve(error.selector)
        except UnknownRuntime as known:
            hint = known.hint
    return UnknownRuntime(error.selector, error.version, hint=hint)


def _language_of(program: Program, settings: Settings) -> str:
    """Return the language of a file without a runtime. Raises: InvalidRequest."""
    # A missing file is reported first.
    _read(program.folder, program.main, source=True, room_bytes=_MOST_BYTES)
    known = sorted(find_definitions(settings, program.ending), key=lambda definition: -definition.rank)
    for definition in known:
        if program.ending and program.ending in definition.extensions:
            return definition.language
    hint = "name it with --language; `firebox runtimes` lists them"
    raise InvalidRequest(f"no language here has files like {program.main!r}", where="--language", hint=hint)


def read_files(program: Program, others: Sequence[str], extensions: Iterable[str], stdin_name: str) -> tuple[File, ...]:
    """Read all files. others: further files; those below the main file's folder keep their relative names.

    extensions: of sources; other files are data. stdin_name: for code from standard input, and for a main file whose own name is
    not UTF-8. Raises: InvalidRequest.
    """
    sources = set(extensions)
    if program.main:
        called = program.main if _is_text(program.main) else stdin_name
        main = _read(program.folder, program.main, source=True, room_bytes=_MOST_BYTES, called=called)
    else:
        main = File(stdin_name, _read_to_end(sys.stdin.buffer, _MOST_BYTES, "standard input"))
    files = [main]
    room_bytes = _MOST_BYTES - len(main.content)
    beside = [(program.folder / name, name) for name in program.others]
    beside += [(Path(word), _name_below(program.folder, Path(word))) for word in others]
    for path, name in beside:
        if not _is_text(name):
            raise InvalidRequest(f"{os.fsencode(path)!r}: file names must be UTF-8 in a sandbox", hint="rename the file")
        file = _read(path.parent, path.name, source=path.suffix in sources, room_bytes=room_bytes, called=name)
        room_bytes -= len(file.content)
        files.append(file)
    return tuple(files)


def _is_text(name: str) -> bool:
    """Return whether a file name is UTF-8: others contain lone surrogates. Source: PEP 383."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _read(folder: Path, name: str, *, source: bool, room_bytes: int, called: str = "") -> File:
    path = folder / name
    try:
        with path.open("rb") as stream:
            return File(called or name, _read_to_end(stream, room_bytes, str(path)), source)
    except OSError as error:
        hint = "pass its files, or run the folder that contains the program" if path.is_dir() else ""
        raise InvalidRequest(f"{path}: {error.strerror}", hint=hint) from None


def _read_to_end(stream: BinaryIO, room_bytes: int, where: str) -> bytes:
    """Read a stream that may be endless, such as a device or a pipe. Raises: InvalidRequest when it is too large."""
    content = BytesIO()
    while piece := stream.read(_PIECE_BYTES):
        if content.tell() + len(piece) > room_bytes:
            raise InvalidRequest(f"the files exceed {_MOST_BYTES} bytes together", where=where)
        content.write(piece)
    return content.getvalue()


def _names_below(folder: Path) -> list[str]:
    """Return the regular files below a folder, except names that begin with a dot. Symlinks are not followed."""
    names: list[str] = []
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                names.append(str(path.relative_to(folder)))
            if len(names) > _MOST_FILES:
                hint = "pass the main file, and others with --file"
                raise InvalidRequest(f"{folder} contains more than {_MOST_FILES} files", hint=hint)
    return names


def _refuse(error: OSError) -> None:
    raise InvalidRequest(f"{error.filename}: {error.strerror}")


def _name_below(folder: Path, path: Path) -> str:
    name = os.path.relpath(path, folder)
    return path.name if name.startswith("..") else name
