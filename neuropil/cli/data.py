"""`neuropil data`: which data sets are here, and how to get the others."""

from __future__ import annotations

import click

from neuropil.cli.options import json_option
from neuropil.cli.output import json_answer, say, table


@click.group("data", short_help="which data sets are here; fetch others")
def command() -> None:
    """The data sets that neuropil knows by name."""


@command.command("list", short_help="which data sets there are, and which are on this machine")
@json_option
def list_data(as_json: bool) -> None:
    """List the data sets: where each is found, how large it is, its licence."""
    from neuropil import data

    with json_answer(as_json) as answer:
        rows = [row._asdict() for row in data.catalogue()]
        if answer is not None:
            answer(rows)
            return
    columns = list(rows[0])
    table(columns, [[_cell(row[column]) for column in columns] for row in rows])


@command.command("fetch", short_help="bring a data set to this machine")
@click.argument("name", metavar="NAME")
def fetch(name: str) -> None:
    """Bring a data set into the cache, checked against its SHA-256."""
    from neuropil import data

    say(f"{name}: {data.fetch(name)}")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
