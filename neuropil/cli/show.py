"""`neuropil show`: one system in full: paper, claims, arms, settings, evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from neuropil.bench import catalogue
from neuropil.cli.output import number, table

if TYPE_CHECKING:
    from neuropil.bench.result import Result
    from neuropil.bench.study import Study


@click.command("show", short_help="one system in full: paper, claims, arms, settings")
@click.argument("system", metavar="ID")
def command(system: str) -> None:
    """Show a system: its paper, what is claimed, the arms, every setting with its range, the evidence."""
    entry = catalogue.find(system)
    click.echo(entry.title)
    click.echo(" · ".join(str(part) for part in (entry.id, entry.room, entry.year) if part))
    if not catalogue.study_path(system).is_file():
        click.echo("\nPlanned, not built yet.")
        return
    study = catalogue.load_study(system)
    click.echo(f"\n{study.summary}")
    _show_claims(study)
    _show_settings(study)
    if study.notes:
        _heading("Notes")
        click.echo(study.notes.strip())
    _heading("Citation")
    click.echo(study.citation.strip())


def _heading(text: str) -> None:
    click.echo("\n" + click.style(text, bold=True))


def _show_claims(study: Study) -> None:
    from neuropil.bench import evidence
    from neuropil.bench.planning import told
    from neuropil.bench.tune import read_tuning

    row = evidence.check([study.id])[0]
    kept = None if row.state == "missing" else evidence.read_evidence(study.id)
    _heading("Claims")
    table(
        ["claim", "verdict", "value", "95 % interval", "margin"],
        [
            [claim.text + " (primary)" * claim.primary, *_judged(kept, claim.text), number(claim.margin)]
            for claim in study.claims
        ],
        right=["value", "margin"],
    )
    if plan := (read_tuning(study.id) or {}).get("plan"):
        _heading("Seeds")
        click.echo(f"{plan['claim']}: {told(plan)}")
    _heading("Evidence")
    click.echo(f"{row.state}{f': {row.reason}' if row.reason else ''}")
    if kept is not None:
        click.echo(f"{len(kept.arms)} arms, {len(kept.seeds)} seeds, {kept.seconds:.0f} s")


def _judged(kept: Result | None, text: str) -> tuple[str, str, str]:
    for judgement in kept.judgements if kept else ():
        if judgement.claim.text == text:
            interval = f"{number(judgement.ci_low)} to {number(judgement.ci_high)}"
            return judgement.verdict or "-", number(judgement.value), interval
    return "-", "-", "-"


def _show_settings(study: Study) -> None:
    from neuropil.bench.fields import describe
    from neuropil.bench.tune import tuned_config

    rows = {arm: {row.name: row for row in describe(tuned_config(study, arm))} for arm in study.arms}
    _heading("Arms")
    click.echo(", ".join(study.arms))
    _heading("Settings (--set FIELD=VALUE)")
    fields = {name: row for by_name in rows.values() for name, row in by_name.items()}
    cells = []
    for name, row in fields.items():
        values = {arm: str(by_name[name].default) for arm, by_name in rows.items() if name in by_name}
        cells.append([name, _values(values, len(study.arms)), row.allowed or row.type, row.help])
    table(["field", "value", "allowed", "meaning"], cells)


def _values(values: dict[str, str], n_arms: int) -> str:
    """One value when all arms share it, else each value with the arms that have it."""
    groups: dict[str, list[str]] = {}
    for arm, value in values.items():
        groups.setdefault(value, []).append(arm)
    if len(groups) == 1 and len(values) == n_arms:
        return next(iter(groups))
    return "; ".join(f"{value} ({', '.join(arms)})" for value, arms in groups.items())
