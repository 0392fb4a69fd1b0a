"""The site: a catalogue of all systems, a page for each that was built, a page for each comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from neuropil.bench import catalogue, evidence
from neuropil.bench.catalogue import Entry
from neuropil.bench.claim import Claim
from neuropil.bench.report import strip, summary
from neuropil.bench.report.page import write_report
from neuropil.bench.report.render import STYLE, render, source, write_assets
from neuropil.bench.result import Judgement, Result
from neuropil.bench.statistics import holding_together
from neuropil.bench.study import Study

INDEX = "index.html"
VERDICTS = ("holds", "fails", "undecided")
STANDINGS: Mapping[str, str] = {  # how a system stands, in the order in which the catalogue tells it
    "holds": "the whole interval lies where the claim puts it",
    "fails": "the whole interval lies short of the claim",
    "undecided": "these seeds cannot tell",
    "stale": "measured, but the code changed since",
    "not run": "built, without evidence yet",
    "planned": "not built yet",
}


@dataclass(frozen=True)
class Comparison:
    """Several mechanisms on one stream, to be shown on a page of their own; `name` is fit for a file."""

    name: str
    title: str
    study: Study
    result: Result


@dataclass(frozen=True)
class Row:
    """A system's line in the catalogue; texts are as they are shown, numbers are what the line is sorted by."""

    entry: Entry
    standing: str
    claim: str = ""
    ours: str = ""
    interval: tuple[str, ...] = ()
    paper: str = ""
    published: float | None = None
    strip: strip.Strip | None = None
    seconds: float | None = None
    duration: str = ""
    note: str = ""
    page: str = ""
    alone: bool = False  # holds by itself, not when it counts that there are many claims
    judgement: Judgement | None = field(default=None, repr=False)


def write_site(out: Path | str, *, comparisons: Sequence[Comparison] = ()) -> Path:
    """Write the site into a directory and return its first page.

    `index.html` lists every catalogued system with its claim, the verdict, the paper's number and ours, and what the
    study costs; `systems/<id>.html` is the report of its evidence, or what is claimed where there is none yet. A
    planned system has no page: its line holds all there is to say. Leagues with evidence and `comparisons` have pages
    in `comparisons/`. Everything opens from disk and loads nothing from elsewhere; files of an earlier site are
    written over.

    Raises CheckpointError for damaged evidence and MissingExtraError without plotly or jinja2.
    """
    out = Path(out)
    write_assets(out)
    rows = [_system(entry, out) for entry in catalogue.entries()]
    rows = sorted(_together(rows), key=lambda row: list(STANDINGS).index(row.standing))
    compared = [*_leagues(), *comparisons]
    for each in compared:
        write_report(each.study, each.result, out / _comparison_page(each.name), site="..")
    styles = [source(STYLE), source("catalogue.css")]
    page = render("catalogue.html", _context(rows, compared), styles=styles, scripts=[source("catalogue.js")])
    (out / INDEX).write_text(page, encoding="utf-8", newline="\n")
    return out / INDEX


def published(study: Study, claim: Claim) -> float | None:
    """The paper's number for what a claim measures; None unless it gives every part of it.

    >>> study = catalogue.load_study("hlop")
    >>> round(published(study, study.claims[0]), 3)
    0.276
    """
    left = study.published.get(claim.left)
    if left is None or claim.right is None:
        return left
    right = study.published.get(claim.right)
    return None if right is None else left - right


def _system(entry: Entry, out: Path) -> Row:
    """A system's line; writes its page where it has one."""
    if not catalogue.study_path(entry.id).is_file():
        return Row(entry, "planned")
    study = catalogue.load_study(entry.id)
    claim = next(claim for claim in study.claims if claim.primary)
    page = f"systems/{entry.id}.html"
    state, reason = evidence.check([entry.id])[0][1:]
    if state == "missing":
        _write_claims(entry, study, reason, out / page)
        return Row(
            entry,
            "not run",
            claim.text,
            paper=_paper(study, claim),
            published=published(study, claim),
            page=page,
        )
    result = evidence.read_evidence(entry.id)
    write_report(study, result, out / page, site="..")
    judged = next(judgement for judgement in result.judgements if judgement.claim.primary)
    edges = [edge for edge in (judged.ci_low, judged.ci_high) if edge is not None]
    return Row(
        entry,
        "stale" if state == "stale" else judged.verdict or "undecided",
        claim.text,
        ours=summary.amount(judged.claim, judged.value),
        interval=tuple(summary.amount(judged.claim, edge, unit=False) for edge in edges),
        paper=_paper(study, claim),
        published=published(study, claim),
        strip=strip.forest(judged, result.seeds),
        seconds=result.seconds,
        duration=_roughly(result.seconds),
        note=reason,
        page=page,
        judgement=judged,
    )


def _together(rows: Sequence[Row]) -> list[Row]:
    """The rows, with a word on claims that hold alone and not beside all the others.

    Of many claims some hold by chance; what is read as a list is judged as one.
    """
    held = {row.entry.id: row.judgement for row in rows if row.judgement and row.standing in VERDICTS}
    alone = {name for name, judged in held.items() if judged.verdict == "holds"} - holding_together(held)
    return [replace(row, alone=True) if row.entry.id in alone else row for row in rows]


def _roughly(seconds: float) -> str:
    """A duration as a column of many has it.

    >>> _roughly(4), _roughly(80), _roughly(5000)
    ('4 s', '1 min', '1.4 h')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else f"{seconds / 3600:.1f} h"


def _paper(study: Study, claim: Claim) -> str:
    value = published(study, claim)
    return "" if value is None else summary.amount(claim, value)


def _write_claims(entry: Entry, study: Study, reason: str, path: Path) -> None:
    """The page of a system that was built and not run yet: what is claimed and how to find out."""
    claims = [
        {
            "text": claim.text,
            "primary": claim.primary,
            "quantity": summary.quantity(claim),
            "condition": summary.condition(claim),
            "paper": _paper(study, claim),
        }
        for claim in sorted(study.claims, key=lambda claim: not claim.primary)
    ]
    context = {
        "entry": entry,
        "study": study,
        "claims": claims,
        "reason": reason,
        "day": date.today().isoformat(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render("claims.html", context, site=".."), encoding="utf-8", newline="\n")


def _leagues() -> list[Comparison]:
    """Studies that compare systems, those with evidence."""
    found = []
    for entry in catalogue.leagues():
        if evidence.check([entry.id])[0].state != "missing":
            study, result = catalogue.load_study(entry.id), evidence.read_evidence(entry.id)
            found.append(Comparison(entry.id, entry.title, study, result))
    return found


def _comparison_page(name: str) -> str:
    return f"comparisons/{name}.html"


def _context(rows: Sequence[Row], compared: Sequence[Comparison]) -> dict[str, Any]:
    counts = {standing: sum(row.standing == standing for row in rows) for standing in STANDINGS}
    return {
        "rows": rows,
        "counts": {standing: count for standing, count in counts.items() if count},
        "standings": STANDINGS,
        "rooms": list(dict.fromkeys(row.entry.room for row in sorted(rows, key=lambda row: row.entry.room))),
        "compared": [
            {
                "title": each.title,
                "page": _comparison_page(each.name),
                "arms": each.result.arms,
                "seeds": len(each.result.seeds),
                "scale": each.result.scale,
            }
            for each in compared
        ],
        "WIDTH": strip.WIDTH,
        "day": date.today().isoformat(),
    }
