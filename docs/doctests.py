"""Shows the examples of docstrings as code: they stand there as doctests, without a heading of their own."""

from __future__ import annotations

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Fences every run of lines that begins with `>>>`, up to the next blank line."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """A docstring has been read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Text with its doctests between fences.

    >>> fenced("Adds.").splitlines()
    ['Adds.']
    """
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith(">>>") and not inside:
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line.strip() if inside and line.lstrip().startswith((">>>", "...")) else line)
    return "\n".join(lines).rstrip()
