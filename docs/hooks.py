"""Pages made of code and evidence: one for each system that was built, the catalogue, and the API by package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from neuropil.bench import catalogue, evidence
from neuropil.bench.report import summary
from neuropil.bench.report.site import published
from neuropil.bench.result import Result
from neuropil.bench.study import Study

ROOT = Path(__file__).parents[1]
PACKAGES = ("nn", "training", "data", "continual", "spiking", "editing", "bench")
# Some of these are written by commands, and may be missing.
HELD = ("architecture.md", "hlop-elsewhere.md", "statistics.md", "benchmarks.md", "guarantees.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that exist, or are made here, into the table of contents."""
    held = [name for name in HELD if (Path(config.docs_dir) / name).is_file()]
    config.nav = [
        *(config.nav or []),
        {"Systems": ["systems/index.md", *(f"systems/{entry.id}.md" for entry in built())]},
        {"How it is held": held},
        {"API": [f"api/{package}.md" for package in PACKAGES]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    pages = {"systems/index.md": systems()}
    pages |= {f"systems/{entry.id}.md": system(entry) for entry in built()}
    pages |= {f"api/{package}.md": api(package) for package in PACKAGES}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def built() -> list[catalogue.Entry]:
    """Systems that have a study."""
    return [entry for entry in catalogue.entries() if catalogue.study_path(entry.id).is_file()]


def systems() -> str:
    """The catalogue, room by room."""
    known = {entry.id for entry in built()}
    lines = ["# Systems", ""]
    entries = catalogue.entries()
    lines.append(f"{len(entries)} published systems have their place here; {len(known)} have been built.")
    for room in sorted({entry.room for entry in entries}):
        lines += ["", f"## {room}", "", "| system | year | state |", "| --- | --- | --- |"]
        for entry in entries:
            if entry.room == room:
                name = f"[{_cell(entry.title)}]({entry.id}.md)" if entry.id in known else _cell(entry.title)
                lines.append(f"| {name} `{entry.id}` | {entry.year or ''} | {standing(entry)} |")
    return "\n".join(lines) + "\n"


def standing(entry: catalogue.Entry) -> str:
    """How a system stands, in a word or two."""
    if not catalogue.study_path(entry.id).is_file():
        return "planned"
    return catalogue.status(entry).verdict or "built, not run"


def system(entry: catalogue.Entry) -> str:
    """The page of a system: paper, claims beside evidence, arms, limits, code."""
    study = catalogue.load_study(entry.id)
    row = evidence.check([entry.id])[0]
    result = None if row.state == "missing" else evidence.read_evidence(entry.id)
    lines = [
        f"# {entry.id}", "", f"*{entry.title}*, {entry.year}. Room: `{entry.room}`.", "", study.summary, "",
        "## Claims", "", *claims(study, result), "",
        f"The evidence is {row.state}{f': {row.reason}' if row.reason else ''}.", "",
        "```console", f"$ neuropil show {entry.id}", f"$ neuropil run {entry.id}", "```", "",
    ]  # fmt: skip
    if result is not None:
        lines += ["## What the arms reached", "", *metrics(study, result), ""]
    if study.notes:
        lines += ["## Limits", "", study.notes.strip(), ""]
    if catalogue.mechanism_path(entry.id).is_file():
        options = ["    options:", "      show_root_heading: false", "      heading_level: 3"]
        lines += ["## Code", "", f"::: neuropil.{entry.room}.{entry.id.replace('-', '_')}", *options, ""]
    return "\n".join([*lines, "## Citation", "", "```bibtex", study.citation.strip(), "```", ""])


def claims(study: Study, result: Result | None) -> list[str]:
    """A table of what is claimed, what the paper says and what was found."""
    found = {judgement.claim.text: judgement for judgement in result.judgements} if result else {}
    lines = ["| claim | asked | paper | ours, 95 % interval | verdict |", "| --- | --- | --- | --- | --- |"]
    for claim in study.claims:
        judged, value = found.get(claim.text), published(study, claim)
        ours = verdict = "-"
        if judged is not None:
            low, high = (summary.amount(claim, edge, unit=False) for edge in (judged.ci_low, judged.ci_high))
            ours = f"{summary.amount(claim, judged.value)} ({low} to {high})"
            verdict = judged.verdict or "-"
        paper = "-" if value is None else summary.amount(claim, value)
        text = f"**{_cell(claim.text)}**" if claim.primary else _cell(claim.text)
        asked = f"`{summary.quantity(claim)}` {summary.condition(claim)}"
        lines.append(f"| {text} | {asked} | {paper} | {ours} | {verdict} |")
    return lines


def metrics(study: Study, result: Result) -> list[str]:
    """A table of arms by metrics, means over seeds with half of the interval."""
    names = summary.metric_names(result)
    lines = [f"| arm | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for arm in result.arms:
        cells = []
        for name in names:
            mean, half, _ = summary.estimate(result.metric(arm, name))
            cells.append(
                summary.number(mean, name) + (f" ± {summary.number(half, name, unit=False)}" if half else "")
            )
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def api(package: str) -> str:
    """What a package exports, each with its docstring, in the order of its `__init__`."""
    root = ROOT / "neuropil" / package / "__init__.py"
    tree = ast.parse(root.read_text(encoding="utf-8"))
    lines = [f"# neuropil.{package}", "", ast.get_docstring(tree) or "", ""]
    for module, name in exports(tree):
        lines += [f"::: {module}.{name}", ""]
    return "\n".join(lines)


def exports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of each public name that an `__init__` takes from its own package."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("neuropil."):
            for alias in node.names:
                if not alias.name.startswith("_"):
                    yield str(node.module), alias.name


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
