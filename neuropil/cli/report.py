"""`neuropil report`: write the report page of a run, or of the evidence that ships."""

from __future__ import annotations

from pathlib import Path

import click

from neuropil.cli.options import RUN_FILE
from neuropil.cli.session import REPORT_FILE
from neuropil.errors import ConfigError, UnknownNameError, nearest


@click.command("report", short_help="write the report page of a run or of the evidence")
@click.argument("source", required=False, metavar="[DIR|ID]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Page to write.")
def command(source: str | None, out: Path | None) -> None:
    """Write the report of a run, or of a system's evidence; of the newest run unless one is named."""
    from neuropil.bench import catalogue, evidence, store
    from neuropil.bench.report import write_report

    directory = newest_run() if source is None else Path(source)
    if (directory / RUN_FILE).is_file():
        result, place = store.read_run(directory), directory / REPORT_FILE
    elif source is None or directory.is_dir():
        raise ConfigError(f"{directory}: not a run directory, it has no {RUN_FILE}")
    else:
        known = [entry.id for entry in (*catalogue.entries(), *catalogue.leagues())]
        if source not in known:
            raise UnknownNameError(f"{source!r} is neither a run nor a system{nearest(source, known)}")
        result, place = evidence.read_evidence(source), Path(f"{source}.html")
    page = write_report(catalogue.load_study(result.id), result, out or place)
    click.echo(f"report    {page}")


def newest_run() -> Path:
    """The run below `runs/` that was started last."""
    runs = [path.parent for path in Path("runs").glob(f"*/{RUN_FILE}")]
    return max(runs, key=lambda path: (path / RUN_FILE).stat().st_mtime, default=Path("runs"))
