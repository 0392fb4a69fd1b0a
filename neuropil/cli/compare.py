"""`neuropil compare`: several mechanisms on one stream, with the same seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from neuropil.cli.options import on_option, run_directory, run_options, seeds_of, settings_of
from neuropil.cli.output import json_answer
from neuropil.cli.session import finish, live, resumable
from neuropil.errors import ConfigError, UnknownNameError, nearest

if TYPE_CHECKING:
    from neuropil.bench.result import Result
    from neuropil.bench.study import Scale, Study


NAME = "compare"  # what a comparison is called where a study has its id


class Contender(NamedTuple):
    """A name to compare, and the arm of the study that runs it."""

    study: Study
    arm: str


@click.command("compare", short_help="several mechanisms on one stream")
@click.argument("names", nargs=-1, required=True, metavar="ID...")
@click.option("--stream", metavar="S", help="Stream of tasks; each study's own unless given.")
@run_options
@on_option
def command(
    names: tuple[str, ...],
    stream: str | None,
    scale: Scale,
    seeds: tuple[int, ...] | None,
    n_seeds: int | None,
    settings: tuple[str, ...],
    jobs: int | None,
    on: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run several mechanisms on the same stream and seeds, and show them in one table and one report.

    A name is a system, or an arm of a study such as a baseline: `neuropil compare hlop ewc replay gpm`.
    """
    from neuropil.bench import runner

    chosen, overrides = seeds_of(seeds, n_seeds), settings_of(settings)
    if stream is not None:
        overrides["stream"] = stream
    with json_answer(as_json) as answer:
        contenders = resolve(dict.fromkeys(names))
        studies = list({contender.study.id: contender.study for contender in contenders}.values())
        chosen = chosen or tuple(range(1 if scale == "smoke" else max(study.seeds for study in studies)))
        with (
            run_directory(out, f"{NAME}-{scale}") as directory,
            resumable("the same command goes on from there"),
        ):
            results = []
            for study in studies:
                arms = [arm for owner, arm in contenders if owner.id == study.id]
                with live(arms) as listener:
                    result = runner.run(
                        study,
                        scale=scale,
                        seeds=chosen,
                        arms=arms,
                        overrides=overrides,
                        jobs=jobs,
                        on=on,
                        out=directory / study.id,
                        on_event=listener,
                    )
                results.append(result)
            return finish(*together(studies, results), directory, answer)


def resolve(names: Iterable[str]) -> list[Contender]:
    """The study and arm of each name, in the order given.

    The study of that id runs its arm of the same name; else the study that declares such an arm does,
    the studies of the other names first.
    """
    from neuropil.bench import catalogue

    built = [
        entry.id
        for entry in (*catalogue.entries(), *catalogue.leagues())
        if catalogue.study_path(entry.id).is_file()
    ]
    names = list(names)
    first = [name for name in names if name in built]
    studies: dict[str, Study] = {}
    found = []
    for name in names:
        for owner in dict.fromkeys([*([name] if name in built else []), *first, *built]):
            study = studies.setdefault(owner, studies.get(owner) or catalogue.load_study(owner))
            if name in study.arms:
                found.append(Contender(study, name))
                break
        else:
            raise _unknown(name, built, studies.values())
    if len(found) < 2:
        raise ConfigError(f"compare expects at least two names, got {', '.join(names)}")
    return found


def _unknown(name: str, built: Sequence[str], studies: Iterable[Study]) -> UnknownNameError:
    known = {*built, *(arm for study in studies for arm in study.arms)}
    return UnknownNameError(f"no system and no arm is called {name!r}{nearest(name, known)}")


def together(studies: Sequence[Study], results: Sequence[Result]) -> tuple[Study, Result]:
    """One study and one result that hold the arms of all.

    Claims are left out: each speaks of its own study's stream and settings.
    """
    arms = {arm: config for study in reversed(studies) for arm, config in study.arms.items()}
    names = " and ".join(study.id for study in studies)
    summary = f"Arms of {names} on the same seeds and the same stream."
    study = dataclasses.replace(studies[0], id=NAME, arms=arms, notes="", published={}, summary=summary)
    result = dataclasses.replace(
        results[0],
        id=NAME,
        arms=tuple(arm for result in results for arm in result.arms),
        trials=tuple(trial for result in results for trial in result.trials),
        judgements=(),
        configs={arm: config for result in results for arm, config in result.configs.items()},
        failures=tuple(failure for result in results for failure in result.failures),
        seconds=sum(result.seconds for result in results),
        directory=None,
    )
    return study, result
