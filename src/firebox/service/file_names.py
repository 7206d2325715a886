"""Names for files that come without one."""

from __future__ import annotations

from pathlib import PurePosixPath

from msgspec.structs import replace

from firebox.domain.model import File


def with_names(files: tuple[File, ...], main_name: str) -> tuple[File, ...]:
    """Name the files without a name: the main file `main_name`, as its runtime wants it, the others by their position."""
    suffix = PurePosixPath(main_name).suffix
    taken = {file.name for file in files}
    main = next((index for index, file in enumerate(files) if file.source), None)
    named: list[File] = []
    for index, file in enumerate(files):
        if not file.name:
            name = main_name if index == main and main_name not in taken else f"file{index}{suffix if file.source else ''}"
            file = replace(file, name=name)
        named.append(file)
    return tuple(named)
