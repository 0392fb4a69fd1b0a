"""`neuropil report`: the report page of a run or of the evidence that ships, or the site of all systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from neuropil.cli.options import RUN_FILE
from neuropil.cli.session import REPORT_FILE
from neuropil.errors import CheckpointError, ConfigError, UnknownNameError, nearest

if TYPE_CHECKING:
    from neuropil.bench.report.site import Comparison

SITE = "site"


@click.command("report", short_help="write the report page of a run or of the evidence, or a site of all")
@click.argument("source", required=False, metavar="[DIR|ID]")
@click.option(
    "--all", "everything", is_flag=True, help="A site: the catalogue, every system, every comparison."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"Page to write; with --all a directory, {SITE}/.",
)
def command(source: str | None, everything: bool, out: Path | None) -> None:
    """Write the report of a run, or of a system's evidence; of the newest run unless one is named.

    With --all, write the site: the catalogue with evidence, and the comparisons below `runs/`.
    """
    if everything:
        if source is not None:
            raise ConfigError(f"--all reports everything; leave out {source!r}, or leave out --all")
        _write_site(out or Path(SITE))
        return
    from neuropil.bench import catalogue, evidence, store
    from neuropil.bench.report import write_report

    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: is a directory, expected a file")
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


def comparisons() -> list[Comparison]:
    """What `neuropil compare` left below `runs/`, the newest first; a comparison that was cut short is left out."""
    from neuropil.bench import catalogue, store
    from neuropil.bench.report import Comparison
    from neuropil.cli.compare import NAME, together

    found = []
    for directory in sorted(Path("runs").glob(f"{NAME}-*"), reverse=True):
        parts = [path.parent for path in sorted(directory.glob(f"*/{RUN_FILE}"))]
        try:
            results = [store.read_run(part) for part in parts]
            studies = [catalogue.load_study(result.id) for result in results]
        except (CheckpointError, UnknownNameError):
            continue
        if results and all(result.trials for result in results):
            study, result = together(studies, results)
            found.append(Comparison(directory.name, ", ".join(result.arms), study, result))
    return found


def _write_site(out: Path) -> None:
    from neuropil.bench.report import write_site

    if out.is_file():
        raise ConfigError(f"--out {out}: is a file; expected a directory for the site")
    index = write_site(out, comparisons=comparisons())
    click.echo(f"site      {index}")
