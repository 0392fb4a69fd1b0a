"""`neuropil resume`: go on with a run that was stopped."""

from __future__ import annotations

from pathlib import Path

import click

from neuropil.cli.options import RUN_FILE, jobs_option, json_option, on_option
from neuropil.cli.output import json_answer
from neuropil.cli.session import finish, live, resumable
from neuropil.errors import ConfigError


@click.command("resume", short_help="go on with a run that was stopped")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@jobs_option
@on_option
@json_option
def command(directory: Path, jobs: int | None, on: str, as_json: bool) -> int:
    """Finish the run in DIR: trials that finished are kept, the others are computed."""
    from neuropil.bench import catalogue, runner, store

    if not (directory / RUN_FILE).is_file():
        raise ConfigError(f"{directory}: not a run directory, it has no {RUN_FILE}")
    with json_answer(as_json) as answer, resumable(f"go on with: neuropil resume {directory}"):
        with live(store.read_run(directory).arms) as listener:
            result = runner.resume(directory, jobs=jobs, on=on, on_event=listener)
        return finish(catalogue.load_study(result.id), result, directory, answer)
