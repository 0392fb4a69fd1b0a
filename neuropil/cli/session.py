"""What commands that run trials share: progress while they run, and what is told and kept at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuropil.cli.options import RUN_FILE
from neuropil.cli.output import one_line, say
from neuropil.errors import MissingExtraError

if TYPE_CHECKING:
    from neuropil.bench.progress import Listener
    from neuropil.bench.result import Result
    from neuropil.bench.study import Study

REPORT_FILE = "report.html"
FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143  # exit codes


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. What cleans up after Ctrl-C cleans up after it too."""


@contextlib.contextmanager
def resumable(hint: str) -> Iterator[None]:
    """Let an interruption say how to go on."""
    said = f"finished trials are kept; {hint}"
    try:
        yield
    except KeyboardInterrupt as stop:
        raise type(stop)(said) from None
    except SystemExit as stop:
        if stop.code != TERMINATED:
            raise
        raise Terminated(said) from None


@contextlib.contextmanager
def live(arms: Iterable[str]) -> Iterator[Listener]:
    """Progress of a run on stderr, fed by its events."""
    from rich.console import Console

    from neuropil.bench.report.terminal import LiveProgress

    with LiveProgress(tuple(arms), Console(stderr=True)) as progress:
        yield progress


def finish(study: Study, result: Result, directory: Path, answer: Callable[[Any], None] | None) -> int:
    """Write the report, tell the outcome and where it is kept, give the exit code."""
    report = write_report(study, result, directory / REPORT_FILE)
    evidence = evidence_of(study, result, directory)
    if answer is not None:
        answer(document(result, report))
    else:
        from neuropil.bench.report.terminal import print_result

        print_result(result)
    if evidence is not None:
        say(f"evidence  {evidence}")
    if report is not None:
        say(f"report    {report}")
    if result.failures:
        first = result.failures[0]
        count = f"{len(result.failures)} of {len(result.arms) * len(result.seeds)} trials failed"
        say(f"neuropil: {count}, first {first.arm} seed {first.seed}: {one_line(first.message)}")
    return FAILED if result.failures else 0


def write_report(study: Study, result: Result, path: Path) -> Path | None:
    """Write the report page; without the packages it needs, say so and go on."""
    from neuropil.bench.report import write_report as write

    try:
        return write(study, result, path)
    except MissingExtraError as error:
        say(f"no report: {error}")
        return None


def evidence_of(study: Study, result: Result, directory: Path) -> Path | None:
    """The evidence that a run has become, if it has."""
    from neuropil.bench.evidence import evidence_file, is_evidence

    path, run = evidence_file(study.id), directory / RUN_FILE
    if is_evidence(study, result) and path.is_file() and path.stat().st_mtime_ns >= run.stat().st_mtime_ns:
        return path
    return None


def document(result: Result, report: Path | None) -> dict[str, Any]:
    """The object that `run --json` prints."""
    return {
        "id": result.id,
        "scale": result.scale,
        "seeds": result.seeds,
        "arms": {arm: _by_seed(result, arm, "metrics") for arm in result.arms},
        "cost": {arm: _by_seed(result, arm, "cost") for arm in result.arms},
        "claims": [
            {
                "text": judgement.claim.text,
                "primary": judgement.claim.primary,
                "verdict": judgement.verdict,
                "value": judgement.value,
                "ci_low": judgement.ci_low,
                "ci_high": judgement.ci_high,
                "margin": judgement.claim.margin,
            }
            for judgement in result.judgements
            if judgement.claim.arms <= set(result.arms)
        ],
        "report": report,
        "seconds": result.seconds,
    }


def _by_seed(result: Result, arm: str, what: str) -> dict[str, list[float | None]]:
    """Numbers of an arm, one per seed in the order of the seeds, None for a trial that failed."""
    by_seed = {trial.seed: getattr(trial, what) for trial in result.trials if trial.arm == arm}
    names = dict.fromkeys(name for numbers in by_seed.values() for name in numbers)
    return {name: [by_seed.get(seed, {}).get(name) for seed in result.seeds] for name in names}
