"""`neuropil serve`: look at the site or a report in the browser, on this machine only."""

from __future__ import annotations

from pathlib import Path

import click

from neuropil.cli.output import say
from neuropil.cli.report import SITE, newest_run
from neuropil.cli.session import REPORT_FILE
from neuropil.errors import ConfigError

INDEX = "index.html"


@click.command("serve", short_help="show the site or a report, on this machine only")
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port; a free one unless given."
)
def command(directory: Path | None, port: int) -> None:
    """Serve a site or the report of a run on 127.0.0.1 until Ctrl-C: `site/`, else the newest run, unless named.

    Only this machine can reach it, and only who knows the address that is printed.
    """
    from neuropil.bench.report.viewer import Viewer

    root, index = pages(directory)
    try:
        viewer = Viewer(root, port=port, index=index)
    except OSError as error:
        raise ConfigError(f"--port {port}: {error.strerror or error}; give another, or none") from error
    with viewer:
        click.echo(viewer.address)
        say("Ctrl-C ends it")
        try:
            viewer.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return


def pages(directory: Path | None) -> tuple[Path, str]:
    """The directory to serve and its first page. Raises ConfigError where there is no page."""
    if directory is None:
        directory = Path(SITE) if (Path(SITE) / INDEX).is_file() else newest_run()
    if directory.suffix == ".html" and directory.is_file():
        return directory.parent, directory.name
    for index in (INDEX, REPORT_FILE):
        if (directory / index).is_file():
            return directory, index
    hint = "`neuropil report --all` makes a site, `neuropil report DIR` the report of a run"
    raise ConfigError(f"{directory}: holds neither {INDEX} nor {REPORT_FILE}; {hint}")
