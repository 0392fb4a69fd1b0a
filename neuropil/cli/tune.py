"""`neuropil tune`: choose each arm's settings on development seeds, the same budget for every arm."""

from __future__ import annotations

import click

from neuropil.cli.options import arms_option, jobs_option, json_option, on_option
from neuropil.cli.output import json_answer, table
from neuropil.cli.session import live, resumable


@click.command("tune", short_help="choose every arm's settings, with the same budget for each")
@click.argument("system", metavar="ID")
@arms_option
@jobs_option
@on_option
@json_option
def command(system: str, arms: tuple[str, ...] | None, jobs: int | None, on: str, as_json: bool) -> None:
    """Search each arm's settings on development seeds (10000 and up) against validation data.

    The choice and every trial are kept beside the evidence; `neuropil run` uses them.
    """
    from neuropil.bench import catalogue
    from neuropil.bench.tune import tune

    with json_answer(as_json) as answer, resumable(f"go on with: neuropil tune {system}"):
        study = catalogue.load_study(system)
        with live(arms or study.arms) as listener:
            outcome = tune(study, arms=arms, jobs=jobs, on=on, on_event=listener)
        if answer is not None:
            answer(outcome)
            return
        table(
            ["arm", "chosen"],
            [
                [arm, ", ".join(f"{name} = {value}" for name, value in chosen.items()) or "as declared"]
                for arm, chosen in outcome["choices"].items()
            ],
        )
