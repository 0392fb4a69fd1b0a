"""What commands print: one JSON object, or a table; and how stdout is kept clean for the former."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click


def plain(value: Any) -> Any:
    """The same value as strict JSON has it: mappings and lists, and None for what is not finite.

    >>> plain({"acc": (0.5, float("nan"))})
    {'acc': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def emit(payload: Any) -> None:
    """Print one JSON value on stdout."""
    click.echo(json.dumps(plain(payload), allow_nan=False))


def say(line: str = "") -> None:
    """Tell the person something, on stderr."""
    click.echo(line, err=True)


@contextlib.contextmanager
def json_answer(wanted: bool) -> Iterator[Callable[[Any], None] | None]:
    """Gives what takes the one JSON value to print on stdout; None where no JSON is wanted.

    Meanwhile whatever this process, its workers or a library write to stdout lands on stderr.
    """
    if not wanted:
        yield None
        return
    answers: list[Any] = []
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield answers.append
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
    for answer in answers:
        emit(answer)


def one_line(message: str) -> str:
    """A message with its line breaks and runs of blanks made single blanks.

    >>> one_line("two\\n  lines")
    'two lines'
    """
    return " ".join(message.split())


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; an undefined one is a dash.

    >>> number(0.12345), number(None)
    ('0.123', '-')
    """
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print rows under headings on stdout; the columns named in `right` hold numbers.

    On a terminal the last column wraps; in a pipe every row is one line.
    """
    lines = [columns, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    before = sum(widths[:-1]) + 2 * len(widths[:-1])
    if sys.stdout.isatty():
        widths[-1] = min(widths[-1], max(shutil.get_terminal_size().columns - before, 20))
    for line in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns[:-1], line, widths, strict=False)
        ]
        wrapped = textwrap.wrap(line[-1], max(widths[-1], 1)) or [""]
        text = "  ".join([*cells, ("\n" + " " * before).join(wrapped)]).rstrip()
        click.echo(click.style(text, bold=True) if line is columns else text)
