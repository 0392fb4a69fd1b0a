"""`neuropil check`: does the evidence still stand?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neuropil.cli.options import json_option
from neuropil.cli.output import json_answer, table
from neuropil.cli.session import live

if TYPE_CHECKING:
    from neuropil.bench.evidence import Row


@click.command("check", short_help="does the evidence still stand?")
@click.argument("systems", nargs=-1, metavar="[ID]...")
@click.option("--replay", is_flag=True, help="Rerun one seed of each arm; equal metrics stamp it.")
@json_option
def command(systems: tuple[str, ...], replay: bool, as_json: bool) -> int:
    """Tell how the evidence of the systems stands, of all that are built unless some are named.

    Fresh: written by this code. Stale: its study or mechanism changed since. Unverified: only shared code
    changed, which --replay can settle. Missing: none was written. Leaves with 1 when any is stale or missing.
    """
    from neuropil.bench import evidence

    with json_answer(as_json) as answer:
        rows = evidence.check(systems or None)
        if replay:
            rows = tuple(row if row.state in ("stale", "missing") else _replayed(row.id) for row in rows)
        if answer is not None:
            answer([row._asdict() for row in rows])
        else:
            table(["id", "evidence", "why"], [[row.id, row.state, row.reason] for row in rows])
    amiss = {"stale", "missing", "unverified"} if replay else {"stale", "missing"}
    return int(any(row.state in amiss for row in rows))


def _replayed(system: str) -> Row:
    from neuropil.bench import catalogue, evidence

    with live(catalogue.load_study(system).arms) as listener:
        return evidence.replay(system, on_event=listener)
