"""Run every pair, and write what was found: a record, a picture and a page.

`python -m tests.together.draw` runs all; `--again broken` only those pairs that broke a promise and new ones;
`--only-draw` none.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from neuropil.plotting import canvas
from tests.together import MODULES  # noqa: F401  (all entries)
from tests.together.world import ENTRIES, KINDS, Entry, Verdict, lives, verdict_of_pair

DOCS = Path(__file__).resolve().parents[2] / "docs"
RECORD, PICTURE, PAGE = DOCS / "composition.json", DOCS / "composition.svg", DOCS / "composition.md"
COLOURS = {"together": "#4a8f98", "refused": "#e3b04b", "apart": "#e4e2da", "broken": "#c0392b"}
WORDS = {
    "together": "train together, both promises kept",
    "refused": "refused in one line",
    "apart": "one network has one place for both",
    "broken": "a promise is broken",
}
HEADINGS = {
    "cell": "cells", "layer": "layers", "parametrization": "parametrizations", "plugin": "plugins",
    "optimizer": "optimizers", "learner": "learners", "adapter": "test-time adapters", "edit": "edits",
}  # fmt: skip
INTRODUCTION = """# Together on one network

Mechanisms of this library are meant to meet on one network. Here every pair of them does: a small network learns two
tasks, one after the other, with both on it, and at the end each must have kept what it promises on its own. Protected
directions have not moved, a memory is within its budget, a neuron that excites still excites, a sparse pattern is the
one that was drawn, an edit has left the network it was given as it was.

![Every pair of mechanisms](composition.svg)

**How to read it.** Each row and column is a mechanism, in groups by kind. A dark square: both train together and keep
their promises. A yellow one: the pair cannot keep both, and says so in one line before anything is trained, as when a
projection of gradients meets an optimizer that scales each coordinate. A pale one: both want the one place that a
network has for them, such as two optimizers. A red one would be a pair that trains and breaks a promise. Where order
matters, as for plugins, both orders were tried; a pair that wants a certain order says so, and is dark.

Of {pairs} pairs {together} live together, {refused} refuse one another, {apart} want the same place and {broken} break
a promise: {share:.1%} of those that are not refused keep both promises.

A new mechanism joins with one entry in `tests/together/`: how it is put on the network, and what it promises. The tests
fail for an exported mechanism without one, and for a promise that no vandal could break. `make composition` runs all
pairs again and writes this page.

## What is refused, and why
"""


def pairs() -> list[tuple[Entry, Entry]]:
    """Every pair, in the order of the picture."""
    ordered = sorted(ENTRIES.values(), key=lambda entry: KINDS.index(entry.kind))
    return list(itertools.combinations(ordered, 2))


def found(progress: bool = False) -> dict[str, Verdict]:
    """The verdict on every pair."""
    alone, verdicts = lives(), {}
    for a, b in pairs():
        verdicts[f"{a.name} + {b.name}"] = verdict = verdict_of_pair(a, b, alone)
        if progress and verdict.kind == "broken":
            print(f"{a.name} + {b.name}: {verdict.line}", flush=True)
    return verdicts


def again(kind: str) -> dict[str, Verdict]:
    """The record with those pairs judged anew that it gives one kind of verdict, or that it lacks."""
    old, alone, verdicts = recorded(), lives(), {}
    for a, b in pairs():
        pair = f"{a.name} + {b.name}"
        known = old.get(pair, [kind])
        verdicts[pair] = verdict_of_pair(a, b, alone) if known[0] == kind else Verdict(*known)
    return verdicts


def record(verdicts: dict[str, Verdict]) -> None:
    """Write what was found, one pair a line."""
    lines = [f"  {json.dumps(pair)}: {json.dumps([v.kind, v.line] if v.kind != 'together' else [v.kind])}"
             for pair, v in verdicts.items()]  # fmt: skip
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def recorded() -> dict[str, list[str]]:
    """What was written."""
    verdicts: dict[str, list[str]] = json.loads(RECORD.read_text())
    return verdicts


def draw() -> Any:
    """The picture of the record."""
    import matplotlib as mpl
    from matplotlib.patches import Patch

    mpl.rcParams.update({"svg.hashsalt": "composition", "font.size": 7, "svg.fonttype": "none"})
    names = list(dict.fromkeys(name for pair in recorded() for name in pair.split(" + ")))
    kinds = [ENTRIES[name].kind for name in names]
    figure, (axes,) = canvas(1, width=11, height=11.4)
    squares = np.full((len(names), len(names), 3), 1.0)
    for pair, verdict in recorded().items():
        a, b = (names.index(name) for name in pair.split(" + "))
        squares[a, b] = squares[b, a] = mpl.colors.to_rgb(COLOURS[verdict[0]])
    axes.imshow(squares, interpolation="nearest")
    for place in range(1, len(names)):
        if kinds[place] != kinds[place - 1]:
            axes.axhline(place - 0.5, color="#7f8894", lw=0.5)
            axes.axvline(place - 0.5, color="#7f8894", lw=0.5)
    labels = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90)
    axes.set_yticks(range(len(names)), labels)
    for kind in dict.fromkeys(kinds):
        middle = sum(i for i, each in enumerate(kinds) if each == kind) / kinds.count(kind)
        axes.text(len(names) + 0.2, middle, HEADINGS[kind], rotation=-90, va="center", fontsize=7)
    axes.set(xlim=(-0.6, len(names) + 1), ylim=(len(names) - 0.4, -0.6), aspect="equal")
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    kinds_found = {verdict[0] for verdict in recorded().values()}
    patches = [Patch(color=COLOURS[kind], label=WORDS[kind]) for kind in WORDS if kind in kinds_found]
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 1.06), ncols=4, frameon=False)
    return figure


def page() -> str:
    """The page about the record."""
    verdicts = recorded()
    count = {kind: sum(v[0] == kind for v in verdicts.values()) for kind in WORDS}
    text = INTRODUCTION.format(pairs=len(verdicts), share=share_kept(), **count)
    reasons: dict[str, list[str]] = {}
    for pair, verdict in verdicts.items():
        if verdict[0] == "refused":
            reasons.setdefault(verdict[1], []).append(pair.replace("_", " "))
    table = [f"| {', '.join(who)} | {line} |" for line, who in reasons.items()]
    return "\n".join([text, "| pair | it says |", "| --- | --- |", *table, ""])


def share_kept() -> float:
    """Of the pairs that one network can carry and that are not refused, those that keep both promises."""
    kinds = [verdict[0] for verdict in recorded().values()]
    return kinds.count("together") / (kinds.count("together") + kinds.count("broken"))


def main() -> None:
    warnings.simplefilter("ignore")
    if "--again" in sys.argv:
        record(again(sys.argv[-1]))
    elif "--only-draw" not in sys.argv:
        record(found(progress=True))
    draw().savefig(PICTURE, metadata={"Date": None}, transparent=True)
    PICTURE.write_text("\n".join(line.rstrip() for line in PICTURE.read_text().splitlines()) + "\n")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
