"""`neuropil runs`: the runs below a directory; two of them compared; one of them exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuropil.bench import index
from neuropil.cli.options import Names, json_option
from neuropil.cli.output import json_answer, number, say, table

if TYPE_CHECKING:
    from neuropil.bench.difference import Difference
    from neuropil.bench.export import Format

FORMATS = ("csv", "json", "parquet")
WIDTH = 33  # of the drawing of an interval, odd so that zero has a place

_directory = click.Path(path_type=Path, file_okay=False)


@click.group("runs", short_help="which runs there are; compare two, export one", invoke_without_command=True)
@click.option(
    "--in", "root", type=_directory, default=Path("runs"), metavar="DIR", help="Where runs lie; else runs/."
)
@json_option
@click.pass_context
def command(context: click.Context, root: Path, as_json: bool) -> None:
    """List the runs in a directory, newest first."""
    if context.invoked_subcommand is not None:
        return
    with json_answer(as_json) as answer:
        runs = index.list_runs(root)
        if answer is not None:
            answer([run._asdict() for run in runs])
            return
    table(
        ["id", "scale", "arms", "seeds", "claim", "state", "seconds", "when", "directory"],
        [
            [
                run.id,
                run.scale,
                str(len(run.arms)),
                str(len(run.seeds)),
                run.verdict or "-",
                _state(run),
                number(run.seconds, 1) if run.finished else "-",
                run.when.replace("T", " "),
                str(run.directory),
            ]
            for run in runs
        ],
        right=["arms", "seeds", "seconds"],
    )


@command.command("diff", short_help="two runs compared, paired by seed")
@click.argument("first", type=_directory, metavar="A")
@click.argument("second", type=_directory, metavar="B")
@click.option(
    "--metric", "metrics", type=Names(), metavar="M,N", help="These metrics; else those of both runs."
)
@json_option
def diff(first: Path, second: Path, metrics: tuple[str, ...] | None, as_json: bool) -> None:
    """Compare run B with run A: mean difference B - A paired by seed, 95 % interval, effect size, drawn.

    The effect size is the mean difference in standard deviations of the differences.
    """
    from neuropil.bench.difference import differences

    with json_answer(as_json) as answer:
        one, other = index.read_table(first), index.read_table(second)
        rows = differences(one, other, metrics or ())
        if answer is not None:
            answer([row._asdict() for row in rows])
            return
    for name, run in (("A", one.run), ("B", other.run)):
        click.echo(f"{name}  {run.directory}: {run.id} at {run.scale} scale, {run.when.replace('T', ' ')}")
    if (one.run.id, one.run.scale) != (other.run.id, other.run.scale):
        say("the runs are of another study or scale: a difference is not of the code alone")
    for metric in dict.fromkeys(row.metric for row in rows):
        click.echo("\n" + click.style(metric, bold=True))
        _show([row for row in rows if row.metric == metric])


@command.command("export", short_help="one run as a table for other programs")
@click.argument("directory", type=_directory, metavar="DIR")
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", help="csv unless given.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Else DIR/trials.FORMAT."
)
def export(directory: Path, form: Format, out: Path | None) -> None:
    """Write every trial of a run as one row: study, scale, arm, seed, metrics, costs."""
    from neuropil.bench.export import write_export

    path = write_export(index.read_table(directory), out or directory / f"trials.{form}", form)
    click.echo(f"exported  {path}")


def _state(run: index.Run) -> str:
    if not run.finished:
        return "unfinished"
    return f"{run.failures} failed" if run.failures else "done"


def _show(rows: list[Difference]) -> None:
    reach = max(abs(end) for row in rows for end in (row.mean, row.low, row.high) if end is not None) or 1.0
    table(
        ["arm", "A", "B", "B - A", "95 % interval", "effect", "seeds", f"{-reach:.2g} to {reach:.2g}"],
        [
            [
                row.arm,
                number(row.first),
                number(row.second),
                f"{row.mean:+.4f}",
                f"{number(row.low, 4)} to {number(row.high, 4)}",
                number(row.effect, 2),
                str(row.seeds),
                drawn(row, reach),
            ]
            for row in rows
        ],
        right=["A", "B", "B - A", "effect", "seeds"],
    )


def drawn(row: Difference, reach: float) -> str:
    """An interval on a line from `-reach` to `reach`, zero in the middle.

    >>> from neuropil.bench.difference import Difference
    >>> drawn(Difference("a", "acc", 0.5, 0.7, 0.2, 0.1, 0.3, 2.0, 5), 0.4)
    '················│···├───●───┤····'
    """
    middle = WIDTH // 2
    low, mean, high = (
        middle + round(middle * (row.mean if end is None else end) / reach)
        for end in (row.low, row.mean, row.high)
    )
    line = ["·"] * WIDTH
    line[middle] = "│"
    line[low : high + 1] = "─" * (high + 1 - low)
    line[low], line[high], line[mean] = "├", "┤", "●"
    return "".join(line)
