"""The report page: one offline HTML file with everything a run showed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

from neuropil.bench.report import strip, summary
from neuropil.bench.report.render import SCRIPT, STYLE, inert_json, packed, plotly_script, render, source
from neuropil.bench.result import Result
from neuropil.bench.study import Study
from neuropil.errors import ConfigError

# One colour an arm everywhere, by its place in the study. Chosen to stay apart for readers without red or green
# cones as well as for others, and to be seen on paper and on slate.
PALETTE = ("#4a78d0", "#b75e0c", "#02b6a6", "#664498", "#c29c0b", "#6f7e78", "#7e4a47", "#919afe")


def write_report(study: Study, result: Result, path: Path | str, *, site: str | None = None) -> Path:
    """Write the report of a run as one HTML file and return its path.

    The file needs nothing else and loads nothing: script, style and data are inside, and its content policy forbids
    any request. A page of a site shares script and style with the other pages. Runs of a subset of arms, at smoke
    scale, or with trials that failed are reported as such.

    Args:
        study: what was run; its figures are drawn and its notes and citation printed.
        result: what came out.
        path: file to write, or a directory that gets `<id>.html`; parents are made.
        site: relative address of the site that the page belongs to, such as `..`; None for a page on its own.

    Raises:
        ConfigError: the result is not one of the study's.
        MissingExtraError: plotly or jinja2 is not installed.
    """
    if study.id != result.id:
        raise ConfigError(
            f"study {study.id!r} cannot report a result of {result.id!r}; expected one of its own runs"
        )
    path = Path(path)
    if path.is_dir() or not path.suffix:
        path = path / f"{result.id}.html"
    context = _context(study, result)
    if site is None:
        scripts = [plotly_script(), source(SCRIPT)] if context["figures"] else [source(SCRIPT)]
        page = render("page.html", context, styles=[source(STYLE)], scripts=scripts)
    else:
        for figure in context["figures"]:
            figure["packed"] = packed(figure["json"])
        page = render("page.html", context, site=site)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def arm_colours(study: Study, result: Result) -> dict[str, str]:
    """Colour of every arm, the same in every run of the study whichever arms it has."""
    arms = dict.fromkeys([*study.arms, *result.arms])
    return {arm: PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}


def _context(study: Study, result: Result) -> dict[str, Any]:
    primary = next(claim for claim in study.claims if claim.primary)
    colours = arm_colours(study, result)
    return {
        "study": study,
        "result": result,
        "colours": colours,
        "headline": (headline := summary.headline(result, primary)),
        "headline_parts": _coloured(headline, colours),
        "claims": _claims(result),
        "metrics": _metrics(study, result),
        "costs": _costs(result),
        "settings": _settings(study, result),
        "tuning": _table(result.tuning.get("trials") or ()),
        "tuning_about": _flat(
            {k: result.tuning[k] for k in ("objective", "seeds", "budget") if k in result.tuning}
        ),
        "figures": _figures(study, result, colours),
        "provenance": _flat({k: v for k, v in result.provenance.items() if k != "files"}),
        "files": _flat(result.provenance.get("files") or {}, words=False),
        "command": _command(study, result),
        "notes": [part.strip() for part in study.notes.split("\n\n") if part.strip()],
        "duration": summary.duration(result.seconds),
        "day": date.today().isoformat(),
        "WIDTH": strip.WIDTH,
        "judged_scale": summary.JUDGED_SCALE,
    }


def _claims(result: Result) -> list[dict[str, Any]]:
    told = []
    for judgement in sorted(result.judgements, key=lambda j: not j.claim.primary):
        interval = (judgement.ci_low, judgement.ci_high)
        told.append(
            {
                "claim": judgement.claim,
                "verdict": summary.verdict(result, judgement),
                "quantity": summary.quantity(judgement.claim),
                "condition": summary.condition(judgement.claim),
                "value": summary.amount(judgement.claim, judgement.value),
                "interval": [
                    summary.amount(judgement.claim, edge, unit=False) for edge in interval if edge is not None
                ],
                "strip": strip.forest(judgement, result.seeds),
                "note": judgement.note,
            }
        )
    return told


def _metrics(study: Study, result: Result) -> list[dict[str, Any]]:
    columns = []
    for name in summary.metric_names(result):
        estimates = [summary.estimate(result.metric(arm, name)) for arm in result.arms]
        drawn = strip.strips(estimates, result.seeds, name)
        cells = [
            {
                "mean": summary.number(e.mean, name),
                "half": summary.number(e.half, name, unit=False) if e.half is not None else None,
                "seeds": [summary.number(value, name, unit=False) for value in e.seeds],
                "strip": s,
                "published": summary.number(study.published[f"{arm}.{name}"], name)
                if f"{arm}.{name}" in study.published
                else None,
            }
            for arm, e, s in zip(result.arms, estimates, drawn, strict=True)
        ]
        columns.append({"name": name, "words": summary.WORDS.get(name, ""), "cells": cells})
    return columns


def _costs(result: Result) -> list[dict[str, Any]]:
    columns = []
    for name in summary.cost_names(result):
        estimates = [summary.estimate(summary.cost(result, arm, name)) for arm in result.arms]
        most = max((e.mean for e in estimates if e.mean is not None), default=0.0)
        cells = [
            {
                "text": summary.number(e.mean),
                "share": round(100 * (e.mean or 0.0) / most, 1) if most > 0 else 0.0,
            }
            for e in estimates
        ]
        columns.append({"name": name.replace("_", " "), "cells": cells})
    return columns


def _settings(study: Study, result: Result) -> dict[str, Any]:
    """Fields with one value for all arms, and fields by arm; what `tune` chose and what was overridden marked."""
    configs = {arm: _config(study, result, arm) for arm in result.arms}
    chosen = result.tuning.get("choices") or {}
    helps = {f.name: f.metadata.get("help", "") for arm in result.arms for f in _fields(study, arm)}
    shared, differing = [], []
    for name in dict.fromkeys(name for config in configs.values() for name in config):
        values = [_plain(config[name]) if name in config else None for config in configs.values()]
        tuned = [name in chosen.get(arm, {}) for arm in result.arms]
        row = {"name": name, "help": helps.get(name, ""), "set": name in result.overrides}
        if len(set(values)) == 1 and not any(tuned):
            shared.append({**row, "value": values[0]})
        else:
            differing.append({**row, "cells": list(zip(values, tuned, strict=True))})
    return {"shared": shared, "differing": differing}


def _config(study: Study, result: Result, arm: str) -> Mapping[str, Any]:
    ran: Mapping[str, Any] | None = result.configs.get(arm)
    if ran is None:
        ran = next((trial.config for trial in result.trials if trial.arm == arm), None)
    return {f.name: getattr(study.arms[arm], f.name) for f in _fields(study, arm)} if ran is None else ran


def _fields(study: Study, arm: str) -> Sequence[Any]:
    return fields(study.arms[arm]) if arm in study.arms else ()


def _figures(study: Study, result: Result, colours: Mapping[str, str]) -> list[dict[str, str]]:
    drawn = [(figure, figure.draw(result, colours)) for figure in study.figures]
    return [
        {"title": figure.title, "caption": figure.caption, "json": inert_json(_short_json(plot.to_json()))}
        for figure, plot in drawn
        if plot.data
    ]


def _short_json(text: str) -> str:
    """The same JSON with numbers of five digits: more cannot be seen, and weigh three times as much."""
    return json.dumps(
        json.loads(text, parse_float=lambda word: float(f"{float(word):.5g}")), separators=(",", ":")
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    return {"columns": columns, "rows": [[row.get(column, "") for column in columns] for row in flat]}


def _coloured(text: str, colours: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Text in pieces, arms' names with their colour."""
    names = "|".join(sorted(map(re.escape, colours), key=len, reverse=True))
    pieces = re.split(rf"(?<!\w)({names})(?!\w)", text)
    return [(piece, colours[piece] if i % 2 else None) for i, piece in enumerate(pieces) if piece]


def _flat(value: Mapping[str, Any], prefix: str = "", *, words: bool = True) -> list[tuple[str, str]]:
    """Nested mappings as pairs of text; one whose values are all the same counts as that value."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}".replace("_", " ") if words else f"{prefix}{key}"
        if isinstance(item, Mapping) and len(item) > 1 and len(set(map(_plain, item.values()))) == 1:
            item = next(iter(item.values()))
        rows += _flat(item, f"{name} · ") if isinstance(item, Mapping) else [(name, _plain(item))]
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return "-" if value is None else str(value)


def _command(study: Study, result: Result) -> str:
    words = [
        "neuropil",
        "run",
        result.id,
        "--scale",
        result.scale,
        "--seeds",
        ",".join(map(str, result.seeds)),
    ]
    if set(result.arms) != set(study.arms):
        words += ["--arms", ",".join(result.arms)]
    for name, value in result.overrides.items():
        words += ["--set", f"{name}={value}"]
    return shlex.join(words)
