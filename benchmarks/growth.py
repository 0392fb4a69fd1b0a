"""How cost grows: a step's time against length, size, number of tasks and density, as plots in `docs/growth/`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import THREADS, progress
from benchmarks.worker import timed
from benchmarks.workload import Run
from benchmarks.workloads import hlop, lif, sparse

FOLDER = Path(__file__).parent.parent / "docs" / "growth"
ROUNDS = 5
Curve = dict[str, list[float]]  # milliseconds by contender

LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512)
NEURONS = (64, 256, 1024, 4096, 16384)
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def main() -> None:
    """Measure and draw everything."""
    torch.set_num_threads(THREADS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, label, points, log, contenders in (
        ("time", "time steps, of 16 x 512 neurons", LENGTHS, True, lambda t: lif_pair(t, 16, 512)),
        ("neurons", "neurons, 8 samples, 32 steps", NEURONS, True, lambda n: lif_pair(32, 8, n)),
        ("density", "density of a 2048 x 2048 layer, 64 samples", DENSITIES, True, sparse_pair),
    ):
        curve = measure([contenders(point) for point in points])
        report(name, points, curve)
        draw(name, label, points, curve, log=log)
    curve = by_task()
    tasks = range(1, hlop.TASKS + 1)
    report("tasks", tasks, curve)
    draw("tasks", "task of the published schedule, 784-800-800-10", tasks, curve, log=False)


def measure(points: Sequence[dict[str, Run]]) -> Curve:
    """Median milliseconds of every contender at every point, contenders in turns."""
    curve: Curve = {name: [] for name in points[0]}
    for runs in points:
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                taken[name].append(timed(run))
        for name, seconds in taken.items():
            curve[name].append(1e3 * statistics.median(seconds))
    return curve


def lif_pair(time: int, batch: int, neurons: int) -> dict[str, Run]:
    """Our layer and the plain loop, forward and backward."""
    arrays = lif.sequence(time, batch, neurons)(False)
    return {"neuropil": lif.ours()(arrays), "plain torch": lif.through_time(arrays, lif.naive_layer)}


def sparse_pair(density: float) -> dict[str, Run]:
    """Our sparse layer and a dense one with a mask, forward and backward."""
    arrays = sparse.layer(density)(False)
    return {"neuropil": sparse.ours(arrays), "dense with a mask": sparse.masked(arrays)}


def by_task() -> Curve:
    """A step of HLOP while each of the ten tasks is learned."""
    arrays = hlop.inputs(False)
    curve: Curve = {}
    for name, steps in (
        ("neuropil", hlop.ours_by_task(arrays, projected=True)),
        ("no protection", hlop.ours_by_task(arrays, projected=False)),
        ("straightforward", hlop.straightforward_by_task(arrays)),
    ):
        curve |= {name: [value for step in steps for value in measure([{name: step}])[name]]}
    return curve


def report(name: str, points: Sequence[float], curve: Curve) -> None:
    """Print the numbers, and between which points ours costs more than in proportion."""
    ours = curve["neuropil"]
    slopes = np.diff(np.log(ours)) / np.diff(np.log(np.array(points, dtype=float)))
    progress(f"{name}: {list(points)}")
    for contender, values in curve.items():
        progress(f"  {contender}: {[round(value, 3) for value in values]}")
    progress(f"  log-log slope of ours: {[round(float(slope), 2) for slope in slopes]}")


def draw(name: str, label: str, points: Sequence[float], curve: Curve, *, log: bool) -> None:
    """A figure of all contenders."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for (contender, values), marker in zip(curve.items(), "os^", strict=False):
        axes.plot(points, values, marker=marker, markersize=4, label=contender)
    if log:
        axes.set(xscale="log", yscale="log")
        first = curve["neuropil"][-1] / points[-1]
        axes.plot(
            points, [first * point for point in points], color="0.7", linestyle=":", label="in proportion"
        )
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=label, ylabel="ms per step")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)
