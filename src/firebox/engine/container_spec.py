"""What is to run in a container, and what it may use."""

from __future__ import annotations

from msgspec import Struct

from firebox.domain.limits import OutputMode

MAX_PROCESSES = 100
MAX_OPEN_FILES = 100


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """What to run in a container, and what it may use."""

    image: str
    arguments: tuple[str, ...] = ()
    """Empty: the image's own."""
    entrypoint: tuple[str, ...] = ()
    """Empty: the image's own."""
    user: str = ""
    """Name or number; empty: the image's own."""
    hostname: str = ""
    memory_bytes: int
    """Swap included. 0: no cap."""
    wall_ms: int
    """By our own clock, from the start of the program; never 0."""
    output_bytes: int
    """Of each stream; never 0."""
    output_mode: OutputMode = OutputMode.KILL
    stdin: bytes | None = None
    """None: nothing, not even an open descriptor. Else it is closed behind these bytes."""
    processes: int = MAX_PROCESSES
    """Processes and threads alive at once."""
    open_files: int = MAX_OPEN_FILES
    """Descriptors of each process."""
    read_only: bool = False
    """Keep the container from writing to its root; a /tmp in memory is then all that it can write."""
