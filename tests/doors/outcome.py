"""The outcome of a program, in one form for all doors. None: not reported by the door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Ending = Literal["ok", "failed", "compile error", "too slow", "too much output", "refused"]


@dataclass(frozen=True)
class Outcome:
    """ending: one of the words above; a rejected program never ran, so nothing else is known of it."""

    ending: Ending | None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Program:
    """A program and its expected outcome. files: name and content, the main file first; stderr is compared unless it is None."""

    name: str
    language: str
    files: tuple[tuple[str, str], ...]
    outcome: Outcome
    stdin: str = ""
    needs: frozenset[str] = field(default_factory=frozenset[str])
    """What a door must have so that the program can be sent through it: "stdin", "files"."""
    tool: str = "python3"

    @property
    def code(self) -> str:
        return self.files[0][1]
