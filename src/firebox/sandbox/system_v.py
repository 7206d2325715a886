"""What the System V queues, semaphores and segments of this IPC namespace hold. Source: sysvipc(7)."""

from __future__ import annotations

_MESSAGE_BYTES, _OBJECT_BYTES = 64, 512
"""What the kernel adds to a message, and what a queue or a set of semaphores is at least; a semaphore is a message."""


def queues() -> int:
    """Count the message queues."""
    return len(_lines("msg"))


def semaphore_sets() -> int:
    """Count the sets of semaphores."""
    return len(_lines("sem"))


def segments_bytes() -> int:
    """Add up the sizes of the segments of shared memory, touched or not."""
    return sum(int(words[3]) for words in _lines("shm"))


def resident_bytes() -> int:
    """Add up what is in the segments. Source: the columns rss and swap."""
    return sum(int(words[14]) + int(words[15]) for words in _lines("shm"))


def kernel_bytes() -> int:
    """Add up messages and semaphores. Source: the columns cbytes and qnum, nsems."""
    held = sum(_OBJECT_BYTES + int(words[3]) + int(words[4]) * _MESSAGE_BYTES for words in _lines("msg"))
    return held + sum(_OBJECT_BYTES + int(words[3]) * _MESSAGE_BYTES for words in _lines("sem"))


def _lines(kind: str) -> list[list[bytes]]:
    with open(f"/proc/sysvipc/{kind}", "rb") as lines:
        return [line.split() for line in lines][1:]
