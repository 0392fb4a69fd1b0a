"""`neuropil plan`: how many seeds does the primary claim need?"""

from __future__ import annotations

import click

from neuropil.cli.options import jobs_option, json_option, on_option
from neuropil.cli.output import json_answer
from neuropil.cli.session import live, resumable


@click.command("plan", short_help="how many seeds does the primary claim need?")
@click.argument("system", metavar="ID")
@jobs_option
@on_option
@json_option
def command(system: str, jobs: int | None, on: str, as_json: bool) -> None:
    """Read from development seeds and validation data how many seeds decide a study's primary claim.

    Tune first; the answer is kept beside the tuning, and `neuropil show` tells it.
    """
    from neuropil.bench import catalogue
    from neuropil.bench.places import place
    from neuropil.bench.planning import plan_seeds, told

    with json_answer(as_json) as answer, resumable(f"go on with: neuropil plan {system}"):
        study = catalogue.load_study(system)
        with place(on, jobs) as executor, live(study.arms) as listener:
            plan = plan_seeds(study, executor, on_event=listener)
        if answer is not None:
            answer(plan._asdict())
        else:
            click.echo(f"{plan.claim}: {told(plan._asdict())}")
