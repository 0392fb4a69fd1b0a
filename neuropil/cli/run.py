"""`neuropil run`: the published claim against honest baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuropil.cli.options import arms_option, on_option, run_directory, run_options, seeds_of, settings_of
from neuropil.cli.output import json_answer
from neuropil.cli.session import finish, live, resumable
from neuropil.cli.tensorboard import tensorboard

if TYPE_CHECKING:
    from neuropil.bench.study import Scale


@click.command("run", short_help="hold a system's claim against honest baselines")
@click.argument("system", metavar="ID")
@arms_option
@run_options
@on_option
@click.option(
    "--tensorboard",
    "logs",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Curves for TensorBoard, too.",
)
def command(
    system: str,
    arms: tuple[str, ...] | None,
    scale: Scale,
    seeds: tuple[int, ...] | None,
    n_seeds: int | None,
    settings: tuple[str, ...],
    jobs: int | None,
    on: str,
    logs: Path | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run the study of a system: every arm on every seed, the claims judged, a report written.

    A laptop-scale run of all arms with the study's own seeds and settings is kept as the system's evidence.
    """
    from neuropil.bench import catalogue, runner

    chosen, overrides = seeds_of(seeds, n_seeds), settings_of(settings)
    with json_answer(as_json) as answer:
        study = catalogue.load_study(system)
        with (
            run_directory(out, f"{study.id}-{scale}") as directory,
            resumable(f"go on with: neuropil resume {directory}"),
        ):
            with live(arms or study.arms) as screen, tensorboard(screen, logs, directory) as listener:
                result = runner.run(
                    study,
                    scale=scale,
                    seeds=chosen,
                    arms=arms,
                    overrides=overrides,
                    jobs=jobs,
                    on=on,
                    out=directory,
                    on_event=listener,
                )
            return finish(study, result, directory, answer)
