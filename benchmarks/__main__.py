"""Command line: run workloads by name, of themselves or of a row; all when none is named."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks import workloads
from benchmarks.harness import ROUNDS, SECONDS, Measurement, measure, progress
from benchmarks.workload import Disagreement, Workload


def all_workloads() -> Iterator[Workload]:
    """Every workload of every module in `benchmarks/workloads`."""
    for module in sorted(pkgutil.iter_modules(workloads.__path__), key=lambda module: module.name):
        yield from importlib.import_module(f"{workloads.__name__}.{module.name}").WORKLOADS


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 if contenders disagreed, 2 if a name is unknown."""
    options = _parser().parse_args(arguments)
    if options.names == ["growth"]:
        importlib.import_module("benchmarks.growth").main()
        return 0
    chosen, unknown = _choose(options.names)
    if unknown:
        known = ", ".join(sorted(name for workload in all_workloads() for name in _names(workload)))
        progress(f"unknown benchmark {unknown[0]!r}; choose from growth, {known}")
        return 2
    results: list[dict[str, Any]] = []
    for workload in chosen:
        try:
            measured = measure(workload, rounds=options.rounds, seconds=options.seconds, say=progress)
        except Disagreement as error:
            progress(f"{workload.name}: {error}")
            return 1
        rows = [row for row in workload.rows if _wanted(row.name, workload, options.names)]
        results += [found for row in rows if (found := measured.row(row))]
        (progress if options.json else print)(describe(measured))
    if options.json:
        json.dump(results, sys.stdout, indent=1)
        sys.stdout.write("\n")
    return 0


def describe(measured: Measurement) -> str:
    """A table of times and one of ratios."""
    workload = measured.workload
    names = sorted(measured.seconds, key=measured.median)
    lines = [f"\n{workload.name}: {workload.about}"]
    for name in names:
        rounds = [s for s in measured.seconds[name] if s is not None]
        lines.append(
            f"  {name:<28}{1e3 * measured.median(name):>10.3f} ms  ({1e3 * min(rounds):.3f} to "
            f"{1e3 * max(rounds):.3f}, {len(rounds)} rounds)"
        )
    for row in filter(None, map(measured.row, workload.rows)):
        verdict = (
            "goal" if row["ratio"] >= row["goal"] else "target" if row["ratio"] >= row["target"] else "MISSED"
        )
        limit = "" if row["limit_ratio"] is None else f", limit/ours {row['limit_ratio']:.2f}"
        lines.append(
            f"  {row['workload']:<18}{row['ratio']:>8.2f} x over {row['against']} ({row['spread'][0]:.2f} to "
            f"{row['spread'][1]:.2f}); target {row['target']:g}, goal {row['goal']:g}: {verdict}{limit}"
        )
    return "\n".join([*lines, *(f"  agrees: {text}" for text in measured.agreement)])


def _names(workload: Workload) -> set[str]:
    return {workload.name, *(row.name for row in workload.rows)}


def _choose(names: list[str]) -> tuple[list[Workload], list[str]]:
    everything = list(all_workloads())
    known = set().union(*map(_names, everything))
    chosen = [workload for workload in everything if not names or _names(workload) & set(names)]
    return chosen, [name for name in names if name not in known]


def _wanted(row: str, workload: Workload, names: list[str]) -> bool:
    return not names or row in names or workload.name in names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a workload or a row; or growth, to plot costs"
    )
    parser.add_argument("--json", action="store_true", help="one list on standard output, an object per row")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"rounds of each workload, {ROUNDS} by default"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"after which no round begins, {SECONDS:g} by default"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
