"""A site as it could be: the real catalogue, some of whose systems were run, with the example run as evidence."""

from dataclasses import replace
from pathlib import Path

import pytest

from neuropil.bench import catalogue, evidence
from neuropil.bench.evidence import Row
from neuropil.bench.report.site import Comparison, write_site
from tests.bench.report_example import STUDY, example

VERDICTS = ("holds", "fails", "undecided")


def install(patch: pytest.MonkeyPatch, place: Path, run: int, more: int = 1) -> list[str]:
    """Give the first `run` systems evidence and `more` after them a study only; gives the ids of the former."""
    names = [entry.id for entry in catalogue.entries()]
    done, built = names[:run], names[: run + more]
    result = example()
    here = Path(__file__)

    def load_study(name):
        published = {**STUDY.published, "finetune.bwt": -0.289}
        return replace(STUDY, id=name, summary=f"{name}: {STUDY.summary}", published=published)

    def read_evidence(name):
        verdict = VERDICTS[names.index(name) % 3]
        first, *rest = result.judgements
        shift = 0.01 * names.index(name)
        first = replace(
            first, value=first.value - shift, ci_low=first.ci_low - shift, ci_high=first.ci_high - shift
        )
        seconds = 20.0 * 4 ** (names.index(name) % 5)
        return replace(result, id=name, judgements=(replace(first, verdict=verdict), *rest), seconds=seconds)

    def check(asked):
        name = asked[0]
        if name not in done:
            return (Row(name, "missing", f"never run; `neuropil run {name}` makes it"),)
        if name == done[-1]:
            return (Row(name, "stale", "the study changed since; run it again"),)
        return (Row(name, "fresh", ""),)

    patch.setattr(catalogue, "leagues", tuple)
    patch.setattr(catalogue, "study_path", lambda name: here if name in built else place / name)
    patch.setattr(catalogue, "load_study", load_study)
    patch.setattr(evidence, "check", check)
    patch.setattr(evidence, "read_evidence", read_evidence)
    return done


def write(place: Path, run: int, more: int = 1) -> Path:
    """Write such a site with one comparison; gives its first page."""
    result = replace(example(("hlop", "ewc", "gpm"), (0, 1)), judgements=())
    compared = Comparison("compare-1", "hlop, ewc and gpm on permuted-mnist", STUDY, result)
    with pytest.MonkeyPatch.context() as patch:
        install(patch, place, run, more)
        return write_site(place / "site", comparisons=[compared])
