"""Wrap prose for generated pages, whose lines stay as short as those that people write."""

from __future__ import annotations

import textwrap

WIDTH = 128


def wrapped(text: str, indent: str = "") -> str:
    """Wrap each paragraph; lists, code blocks and indented lines stay as they are. indent: of all lines but the first."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(_wrapped(each, indent) for each in paragraphs)


def _wrapped(paragraph: str, indent: str) -> str:
    lines = paragraph.split("\n")
    if any(line.startswith((" ", "*", "-", "|", "`" * 3)) for line in lines[1:]):
        return paragraph
    return "\n".join(
        textwrap.wrap(" ".join(lines), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )
