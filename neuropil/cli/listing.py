"""`neuropil list`: the catalogue, with how each system stands. Imports no torch."""

from __future__ import annotations

import click

from neuropil.bench import catalogue
from neuropil.cli.options import json_option
from neuropil.cli.output import emit, number, table
from neuropil.errors import UnknownNameError, nearest


@click.command("list", short_help="what there is, does its claim hold, what does it cost")
@click.option("--room", metavar="R", help="Only the systems of one room.")
@click.option("--leagues", is_flag=True, help="Studies that compare systems, instead of systems.")
@json_option
def command(room: str | None, leagues: bool, as_json: bool) -> None:
    """List the systems: whether each is built, whether its claim holds, how long its study takes."""
    entries = catalogue.leagues() if leagues else catalogue.entries()
    rooms = dict.fromkeys(entry.room for entry in (*catalogue.entries(), *catalogue.leagues()))
    if room is not None and room not in rooms:
        raise UnknownNameError(f"unknown room {room!r}{nearest(room, rooms)}")
    rows = [
        entry._asdict() | {"status": status.state, "verdict": status.verdict, "seconds": status.seconds}
        for entry in entries
        if room in (None, entry.room)
        for status in [catalogue.status(entry)]
    ]
    if as_json:
        emit(rows)
        return
    table(
        ["id", "room", "status", "claim", "seconds", "year", "title"],
        [
            [
                row["id"],
                row["room"],
                row["status"],
                row["verdict"] or "-",
                number(row["seconds"], 0),
                str(row["year"] or "-"),
                row["title"],
            ]
            for row in rows
        ],
        right=["seconds", "year"],
    )
