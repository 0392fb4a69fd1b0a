"""Entry of the command `neuropil`: finds the command asked for, and turns what goes wrong into one line.

Exit codes: 0 done; 1 the run failed; 2 bad input; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM).
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import NoReturn

import click

from neuropil import __version__
from neuropil.cli.output import one_line
from neuropil.cli.session import BAD_INPUT, FAILED, INTERRUPTED, TERMINATED, Terminated
from neuropil.errors import CheckpointError, NeuropilError, NonFiniteError, UnknownNameError, nearest

COMMANDS: Mapping[str, str] = {  # command: its module, which names it `command`
    "list": "listing",
    "show": "show",
    "run": "run",
    "resume": "resume",
    "compare": "compare",
    "tune": "tune",
    "plan": "plan",
    "runs": "runs",
    "check": "check",
    "report": "report",
    "serve": "serve",
    "data": "data",
    "doctor": "doctor",
}


class Lazy(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of that name; an unknown one is told with the nearest."""
        if cmd_name not in COMMANDS:
            raise UnknownNameError(f"unknown command {cmd_name!r}{nearest(cmd_name, COMMANDS)}")
        module = importlib.import_module(f"neuropil.cli.{COMMANDS[cmd_name]}")
        found: click.Command = module.command
        return found


@click.command(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Any command takes --debug: an error then comes with its traceback.",
)
@click.version_option(__version__, prog_name="neuropil", message="%(prog)s %(version)s")
def neuropil() -> None:
    """Brain-inspired learning: published mechanisms, each held against its claim.

    Start with `neuropil list`, then `neuropil run hlop`.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code; `arguments` default to the process's own."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _sigterm_interrupts():
            code = neuropil.main(words, prog_name="neuropil", standalone_mode=False)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        code, message = verdict(error)
        if message and not debug:
            click.echo(f"neuropil: {message}", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def verdict(error: BaseException) -> tuple[int, str]:
    """Exit code of an error and the line that tells it.

    >>> verdict(UnknownNameError("unknown id 'hlpo'; did you mean 'hlop'?"))
    (2, "unknown id 'hlpo'; did you mean 'hlop'?")
    """
    if isinstance(error, click.Abort) and isinstance(error.__cause__, KeyboardInterrupt):
        error = error.__cause__
    if isinstance(error, KeyboardInterrupt):
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        word = "terminated" if isinstance(error, Terminated) else "interrupted"
        return code, "; ".join([word, *map(str, error.args)])
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED, ""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, ""
    if isinstance(error, click.ClickException):
        return BAD_INPUT, one_line(error.format_message())
    if isinstance(error, CheckpointError | NonFiniteError):
        return FAILED, lines(error)
    if isinstance(error, NeuropilError):
        # A NeuropilError of no particular kind is a run that failed; every other kind is a wrong input.
        return FAILED if type(error) is NeuropilError else BAD_INPUT, lines(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return FAILED, f"{error.strerror.lower()}{where}"
    return FAILED, one_line(f"unexpected {type(error).__name__}: {error} (--debug shows where)")


def lines(error: BaseException) -> str:
    """The lines of an error that reports several problems at once, each marked as ours."""
    return "\nneuropil: ".join(one_line(line) for line in str(error).splitlines() if line.strip())


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    def terminate(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
