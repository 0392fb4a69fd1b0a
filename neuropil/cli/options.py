"""Options that several commands share, and what their text means."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click import Context, Parameter

from neuropil.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])

SCALES = ("smoke", "laptop", "paper")
RUN_FILE = "run.json"  # what makes a directory a run


class Seeds(click.ParamType[tuple[int, ...]]):
    """Comma-separated whole numbers, each once."""

    name = "seeds"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> tuple[int, ...]:
        """The seeds in the order given."""
        words = str(value).split(",")
        if not all(word.strip().isdecimal() for word in words):
            self.fail(f"expected whole numbers such as 0,1,2, got {value!r}", param, ctx)
        seeds = tuple(int(word) for word in words)
        if len(set(seeds)) < len(seeds):
            self.fail(f"each seed counts once, got {value!r}", param, ctx)
        return seeds


class Names(click.ParamType[tuple[str, ...]]):
    """Comma-separated names, each once."""

    name = "names"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> tuple[str, ...]:
        """The names in the order given."""
        names = tuple(dict.fromkeys(word.strip() for word in str(value).split(",") if word.strip()))
        if not names:
            self.fail(f"expected names such as a,b, got {value!r}", param, ctx)
        return names


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, nothing else.")
jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Trials at a time; one per core unless given."
)
on_option = click.option(
    "--on",
    default="local",
    metavar="WHERE",
    help="Where trials are computed: local, ray, or ray://host:port.",
)
arms_option = click.option("--arms", type=Names(), metavar="A,B", help="Only these arms of the study.")


def run_options(command: Command) -> Command:
    """The options of commands that run trials: scale, seeds, settings, jobs, directory, JSON."""
    options = (
        click.option(
            "--scale",
            type=click.Choice(SCALES),
            default="laptop",
            help="Claims are judged at laptop, the default.",
        ),
        click.option("--seeds", type=Seeds(), metavar="0,1,2", help="These seeds, not the study's."),
        click.option("--n-seeds", type=click.IntRange(min=1), metavar="N", help="Seeds 0 to N-1."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Change a setting (`neuropil show ID` lists them); may be repeated.",
        ),
        jobs_option,
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Directory of the run; else runs/...",
        ),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def seeds_of(seeds: Sequence[int] | None, n_seeds: int | None) -> tuple[int, ...] | None:
    """The seeds asked for; None for the study's own.

    >>> seeds_of(None, 3)
    (0, 1, 2)
    """
    if seeds is not None and n_seeds is not None:
        raise ConfigError("--seeds and --n-seeds exclude each other; give one of them")
    if n_seeds is not None:
        return tuple(range(n_seeds))
    return tuple(seeds) if seeds is not None else None


def settings_of(pairs: Iterable[str]) -> dict[str, str]:
    """`field=value` words as a mapping; the last of a field counts.

    >>> settings_of(["lr=0.1", "stream=split-mnist"])
    {'lr': '0.1', 'stream': 'split-mnist'}
    """
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--set expects field=value, got {pair!r}")
        settings[name.strip()] = value
    return settings


@contextlib.contextmanager
def run_directory(out: Path | None, name: str) -> Iterator[Path]:
    """A directory for a run: `out`, which must be empty or new, else a new one below `runs/`.

    One that was made here goes away again when nothing was put into it.
    """
    if out is None:
        Path("runs").mkdir(exist_ok=True)
        directory = _new_directory(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    else:
        directory = out
        _refuse_foreign(directory)
    made = out is None or not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise ConfigError(f"--out {out}: cannot be written to; give another directory")
    try:
        yield directory
    finally:
        if made:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _new_directory(stem: Path) -> Path:
    """Make a directory that nobody has made before, even in the same second."""
    for number in itertools.count(1):
        directory = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
            break
    return directory


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"--out {directory}: is a file, expected a directory")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if (directory / RUN_FILE).is_file():
        raise ConfigError(
            f"--out {directory}: holds a run; go on with it by `neuropil resume {directory}`, or give another"
        )
    raise ConfigError(f"--out {directory}: holds files that are not a run; give an empty or a new directory")
