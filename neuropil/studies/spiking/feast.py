"""FEAST: adaptive selection thresholds make every feature of an event stream count equally.

The events are made here: handwritten digits moved along a triangle of six pixels before a simulated event camera, some
850 events a digit, where the paper recorded N-MNIST and aeroplanes. What a layer says of a digit is how often each of
its 36 features won, 36 numbers for a logistic regression: few, so that features matter. With 4 x 4 regions, 576
numbers, even random features are good and the gap shrinks to some points.

The balance of wins and misses is a consequence of the rule and not of the data: thresholds neither grow nor fall for
ever only if each feature wins `fall / rise` times as often as an event is missed. It says when learning has converged
and holds from any first thresholds; how good the features are is another question, which the accuracies answer.
K-means on the same surfaces is the strong baseline: it keeps surfaces in memory and visits them ten times, FEAST sees
every event once and keeps one time per pixel. `grid` counts events by place, without any feature.

When to use it: unlabelled event streams, on line, where no batch is kept, and as layers on layers: `process` gives
events again. Matching an event to the features is what any feature layer does, three microseconds; learning
from it adds about a tenth (`overhead`). At rest after learning an event belongs to the nearest feature here; keeping
the thresholds (`inference="threshold"`) drops the less than one percent of misses and changed nothing on development
seeds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuropil import data
from neuropil.bench import figures, figures_images
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.data.events import Events
from neuropil.spiking import FEASTLayer, time_surfaces

Array = np.ndarray[Any, Any]
SENSOR = (34, 34, 2)
REGIONS = 4  # rows and columns of the finer counts


@dataclass(frozen=True)
class Recordings(Config):
    """Moving digits, and the classifier of what a layer counts."""

    dataset: str = setting("mnist", "images to move: a name that `neuropil data list` shows")
    train_samples: int = setting(600, "recordings that the classifier learns from", low=20)
    learn_samples: int = setting(250, "of them, recordings that features learn from", low=4)
    test_samples: int = setting(500, "recordings that are judged", low=10, high=2000)
    contrast: float = setting(0.35, "change of light that makes an event", low=0.01, high=1.0)
    inverse_penalty: float = setting(1.0, "C of the logistic regression", low=1e-6)


@dataclass(frozen=True)
class Features(Recordings):
    """Features of time surfaces."""

    features: int = setting(36, "number of features", low=2)
    size: int = setting(9, "odd width of a surface, pixels", low=3, choices=(3, 5, 7, 9, 11, 13))
    time_constant: float = setting(20.0, "of the surfaces, milliseconds", low=0.01)


@dataclass(frozen=True)
class Competition(Features):
    """Features that learn by competition."""

    learning_rate: float = setting(1e-3, "share of a surface that a winner takes over", low=0.0, high=1.0)


@dataclass(frozen=True)
class Adaptive(Competition):
    """Competition with adaptive selection thresholds."""

    rise: float = setting(1e-3, "of a winner's threshold", low=1e-6, high=1.0)
    fall: float = setting(3e-3, "of all thresholds at a miss", low=1e-6, high=1.0)


@dataclass(frozen=True)
class KMeans(Features):
    """K-means on surfaces that were kept."""

    every: int = setting(5, "of so many surfaces one is kept", low=1)


@dataclass(frozen=True)
class Grid(Recordings):
    """Events counted by place alone."""

    layout: str = setting("6x6", "fields, both polarities together or apart", choices=("6x6", "4x4x2"))


class Scene(NamedTuple):
    """Recordings of one seed."""

    train: list[Events]
    train_labels: Array
    judged: list[Events]
    labels: Array


def make_scene(trial: Trial) -> Scene:
    """Recordings to learn from, and others to judge by."""
    config: Recordings = trial.config
    images = data.load(config.dataset)
    rng = np.random.default_rng(trial.seed)
    order = rng.permutation(len(images.train))
    rows, rest = order[: config.train_samples], order[config.train_samples :]
    if trial.evaluate_on == "validation":
        pictures, labels, chosen = images.train, images.train_labels, rest[: config.test_samples]
    else:
        pictures, labels = images.test, images.test_labels
        chosen = rng.permutation(len(images.test))[: config.test_samples]

    def recorded(which: Any) -> list[Events]:
        return data.moving_images_to_events(which, threshold=config.contrast)

    return Scene(
        recorded(images.train[rows]), images.train_labels[rows].numpy(), recorded(pictures[chosen]),
        labels[chosen].numpy(),
    )  # fmt: skip


def trial(trial: Trial) -> Outcome:
    """Learn features, count their wins, classify."""
    config: Any = trial.config
    scene = make_scene(trial)
    started = time.perf_counter()
    if trial.arm == "grid":
        known, unknown = (by_place(recordings, config.layout) for recordings in (scene.train, scene.judged))
        metrics: dict[str, float | None] = {
            "acc": accuracy(known, unknown, scene, config),
            "regions_acc": None,
        }
        return Outcome(metrics, {"seconds": time.perf_counter() - started})
    layer = make_layer(trial, scene)
    learned = time.perf_counter() - started
    fine, judged = layer.transform(scene.train), layer.transform(scene.judged)
    metrics = {"acc": accuracy(whole(fine, config), whole(judged, config), scene, config)}
    final = trial.evaluate_on == "test"  # what no setting is chosen by is measured once
    if final:
        metrics["regions_acc"] = accuracy(fine, judged, scene, config)
    cost = {"seconds": time.perf_counter() - started, "seconds_of_learning": learned}
    curves: dict[str, Any] = {}
    if isinstance(config, Competition):
        metrics |= balance(layer, scene)
        curves["wins"] = sorted((layer.wins_ / layer.wins_.sum()).tolist(), reverse=True)
    if final and trial.arm == "feast":
        metrics |= {f"{name}_from_one": value for name, value in from_one(layer, scene).items()}
        curves["miss_rate"] = layer.miss_rates_.tolist()
        cost["overhead"] = learning_overhead(layer, scene)
    arrays = {"features": pictures(layer)} if trial.seed == 0 else {}
    return Outcome(metrics, cost, curves, arrays)


def make_layer(trial: Trial, scene: Scene) -> FEASTLayer:
    """The layer of an arm, its features learned; judged with regions."""
    config: Any = trial.config
    half = scene.train[: config.learn_samples]
    layer = FEASTLayer(
        SENSOR, features=config.features, size=config.size, time_constant=config.time_constant,
        learning_rate=getattr(config, "learning_rate", 0.0), rise=getattr(config, "rise", 0.0),
        fall=getattr(config, "fall", 0.0), initial_threshold=None if trial.arm == "feast" else -np.inf,
        regions=(REGIONS, REGIONS), random_state=trial.seed,
    )  # fmt: skip
    if isinstance(config, Competition):
        return layer.fit(half)
    layer.fit(half[:1])  # nothing is learned: features stay as they are drawn
    if isinstance(config, KMeans):
        kept = [
            time_surfaces(events, SENSOR, size=config.size, time_constant=config.time_constant).surfaces
            for events in half
        ]
        surfaces = np.concatenate([each.reshape(len(each), -1)[:: config.every] for each in kept])
        means = MiniBatchKMeans(
            config.features, random_state=trial.seed, n_init=1, batch_size=1024, max_iter=10
        ).fit(surfaces)
        centres = means.cluster_centers_
        layer.weights_ = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    return layer


def balance(layer: FEASTLayer, scene: Scene) -> dict[str, float | None]:
    """How evenly features win, and how near the misses are to what was expected, in another pass of learning."""
    before = layer.wins_.copy()
    twin = FEASTLayer(**layer.get_params())
    twin.weights_, twin.thresholds_ = layer.weights_, layer.thresholds_
    twin.wins_, twin.miss_rates_ = before, np.empty(0)
    learned = scene.train[: max(len(layer.miss_rates_), 1)]
    for events in learned:
        twin.learn(events)
    wins = twin.wins_ - layer.wins_
    missed = 1 - wins.sum() / sum(map(len, learned))
    spread = float(wins.std() / wins.mean())
    expected = layer.expected_miss_rate
    return {
        "win_spread": spread,
        "evenness": 1 - spread,
        "idle": float((wins < 0.1 * wins.mean()).mean()),
        "miss_rate": float(missed),
        "miss_agreement": float(1 - abs(missed / expected - 1)) if expected else None,
    }


def from_one(layer: FEASTLayer, scene: Scene) -> dict[str, float | None]:
    """The same balance from first thresholds of one, which nothing exceeds."""
    other = FEASTLayer(**{**layer.get_params(), "initial_threshold": 1.0})
    return balance(other.fit(scene.train[: len(layer.miss_rates_)]), scene)


def learning_overhead(layer: FEASTLayer, scene: Scene) -> float:
    """Time to learn from a recording over the time to match it to features."""
    events = max(scene.train, key=len)
    twin = FEASTLayer(**layer.get_params()).fit(scene.train[:20])
    return overhead(lambda: layer.process(events), lambda: twin.learn(events))


def whole(counts: Array, config: Features) -> Array:
    """Counts of the whole sensor from those of its regions."""
    total: Array = counts.reshape(len(counts), -1, config.features).sum(1)
    return total


def by_place(recordings: list[Events], layout: str) -> Array:
    """Events of each field, by polarity or not: `[recordings, fields]`."""
    side = int(layout[0])
    found = []
    for events in recordings:
        row, column = (events[name].astype(np.int64) * side // SENSOR[0] for name in ("y", "x"))
        polarity = events["p"].astype(np.int64) if layout == "4x4x2" else 0
        fields = side * side * (2 if layout == "4x4x2" else 1)
        found.append(np.bincount((row * side + column) + side * side * polarity, minlength=fields))
    return np.stack(found).astype(np.float64)


def accuracy(known: Array, unknown: Array, scene: Scene, config: Recordings) -> float:
    """Share of judged digits that a logistic regression on the square roots of counts names rightly."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=config.inverse_penalty, max_iter=300))
    model.fit(np.sqrt(known), scene.train_labels)
    return float(model.score(np.sqrt(unknown), scene.labels))


def pictures(layer: FEASTLayer, a_row: int = 12) -> dict[str, list[Any]]:
    """Features as pictures, in rows."""
    squares = layer.weights_.reshape(-1, layer.size, layer.size)
    scaled = (squares / squares.max((1, 2), keepdims=True)).round(2).tolist()
    return {f"{at + 1} to {at + len(part)}": part for at in range(0, len(scaled), a_row)
            if (part := scaled[at : at + a_row])}  # fmt: skip


def data_checksum(config: Recordings) -> str:
    """What identifies the images that are moved."""
    return data.load(config.dataset).checksum


_TIMES, _PENALTIES = (10.0, 20.0, 40.0, 80.0), (0.1, 1.0)
_SEARCH = {"time_constant": _TIMES, "inverse_penalty": _PENALTIES}

study = Study(
    id="feast",
    summary=(
        "Features of an event camera's stream compete for events, each with its own selection threshold: all win "
        "equally often, the share of missed events is known beforehand, and digits are told apart better."
    ),
    citation="""@article{afshar2020feast,
  title   = {Event-Based Feature Extraction Using Adaptive Selection Thresholds},
  author  = {Afshar, Saeed and Ralph, Nicholas and Xu, Ying and Tapson, Jonathan and van Schaik, Andr{\\'e} and Cohen,
             Gregory},
  journal = {Sensors},
  volume  = {20},
  number  = {6},
  pages   = {1600},
  year    = {2020}
}""",
    arms={
        "feast": Adaptive(),
        "no_thresholds": Competition(),
        "random": Features(),
        "kmeans": KMeans(),
        "grid": Grid(),
    },
    search={
        "feast": _SEARCH,
        "no_thresholds": _SEARCH,
        "random": _SEARCH,
        "kmeans": _SEARCH,
        "grid": {"inverse_penalty": (0.01, 0.1, 1.0, 10.0), "layout": ("6x6", "4x4x2")},
    },
    trial=trial,
    data=data_checksum,
    claims=(
        exceeds(
            "feast.acc", "no_thresholds.acc", by=0.08, primary=True,
            text="selection thresholds make 36 counts at least 8 points better than competition alone",
        ),
        exceeds("feast.acc", "random.acc", by=0.05, text="36 learned features beat random ones by at least 5 points"),
        exceeds("feast.acc", "kmeans.acc", by=-0.03, text="seeing each event once costs at most 3 points"),
        exceeds("feast.acc", "grid.acc", by=0.03, text="36 features beat 36 places by at least 3 points"),
        exceeds(
            "feast.regions_acc", "random.regions_acc", by=0.02,
            text="with 4 x 4 regions learned features are still at least 2 points ahead of random ones",
        ),
        at_least(
            "feast.miss_agreement", 0.85, text="missed events are within 15 % of rise / (rise + features x fall)"
        ),
        at_least(
            "feast.miss_agreement_from_one", 0.85, text="the same from first thresholds that refuse everything"
        ),
        at_least("feast.evenness", 0.9, text="win rates vary by at most 10 % from feature to feature"),
        at_least(
            "no_thresholds.win_spread", 1.0, text="without thresholds they vary by at least 100 %"
        ),
    ),
    scales={
        "smoke": {"train_samples": 60, "learn_samples": 30, "test_samples": 40},
        "paper": {"dataset": "mnist-full", "train_samples": 10_000, "learn_samples": 2000, "size": 11},
    },
    figures=(
        figures.MetricStrip("acc", title="Digits told apart by 36 numbers"),
        figures_images.ImageRows(
            "features", title="Features", caption="Each square is what one feature has become, dark where recent."
        ),
        figures.LearningCurves(
            "wins", title="How often each feature wins", x_title="feature, most frequent first",
            y_title="share of wins",
            caption="Share of the won events while learning, features sorted. Level: all features count equally.",
        ),
        figures.LearningCurves(
            "miss_rate", title="Missed events", x_title="recording", y_title="share missed",
            caption="Share of a recording's events that no feature took; it settles where the rule predicts.",
        ),
        figures.MetricStrip("regions_acc", title="Digits told apart with 4 x 4 regions"),
        figures.CostBars(("seconds_of_learning",)),
    ),
    notes=(__doc__ or "").partition("\n\n")[2],
)  # fmt: skip
