"""Fast and slow learning: a memory's controllers learn from predicted gradients, a few steps at a time.

In the first run, on seeds 0 to 4, the primary claim was undecided (21 points, 1 to 41); this one is on fresh seeds,
with the same margins. What does not reproduce: the slow path alone is far ahead, above all on the rare label, and
predictions hardly point along the gradients that arrive. Fast steps on predictions beat truncated gradients because
the slow path is beside them; what the predictions themselves add is the difference to the arm without them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import DecoupledUpdate, MemoryNetwork, SyntheticGradient
from neuropil.data.task import Batch


@dataclass(frozen=True)
class Episodes(Config):
    """Sequences in which the meaning of the labels has to be learned anew, and the memory that learns it."""

    dataset: str = setting("mnist", "images to name: a name that `neuropil data list` shows")
    classes: int = setting(5, "classes in a sequence, each with a label drawn for it", low=2, high=10)
    length: int = setting(15, "images in a sequence", low=2)
    gap: int = setting(2, "images at least between two of the same class", low=0)
    rare: float = setting(0.5, "how often the first label is drawn, next to the others", low=0.01, high=1.0)
    features: int = setting(32, "random projections of an image", low=1)
    hidden: int = setting(64, "width of the controllers", low=1)
    slots: int = setting(16, "rows of the memory", low=1)
    batches: int = setting(50, "batches of sequences to learn from", low=1)
    batch_size: int = setting(64, "sequences in a batch", low=1)
    truncation: int = setting(3, "steps that gradients travel", low=1)
    lr: float = setting(1e-2, "rate of Adam", low=0.0)
    synthetic_lr: float = setting(3e-3, "rate of the gradient predictor", low=0.0)
    fast_share: float = setting(
        0.2, "rate of the fast path over that of the slow one, where there are both", low=0.0
    )
    gain: float = setting(1.0, "steepness of the surprise gate", low=0.0)


class World:
    """Draws sequences: images `[batch, time, features]` joined by the last image's label, labels, presentations."""

    def __init__(self, config: Episodes, seed: int, evaluate_on: str) -> None:
        images = data.load(config.dataset)
        self.config, self.generator = config, torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images.train), generator=self.generator)
        pixels = images.train[0].numel()
        self.projection = torch.randn(pixels, config.features, generator=self.generator) / pixels**0.5
        self.mean, self.std = images.mean, images.std
        learned, held = order[:-2000], order[-2000:]
        self.train = self._by_class(images.train[learned], images.train_labels[learned])
        if evaluate_on == "validation":
            self.judge = self._by_class(images.train[held], images.train_labels[held])
        else:
            self.judge = self._by_class(images.test, images.test_labels)

    def _by_class(self, pixels: Tensor, labels: Tensor) -> list[Tensor]:
        x = (pixels.flatten(1).float() / 255 - self.mean) / self.std @ self.projection
        return [x[labels == label] for label in range(int(labels.max()) + 1)]

    def draw(self, pool: list[Tensor], count: int) -> tuple[Batch, Tensor]:
        """Sequences, and how often each image's class was shown before, `[batch, time]`."""
        config, generator = self.config, self.generator
        n, steps = config.classes, config.length
        chosen = torch.stack([torch.randperm(len(pool), generator=generator)[:n] for _ in range(count)])
        weights = torch.ones(count, n)
        weights[:, 0] = config.rare
        labels = torch.zeros(count, steps, dtype=torch.long)
        for t in range(steps):
            allowed = weights.scatter(1, labels[:, max(0, t - min(config.gap, n - 1)) : t], 0.0)
            labels[:, t] = torch.multinomial(allowed, 1, generator=generator)[:, 0]
        classes = chosen.gather(1, labels)
        sizes = torch.tensor([len(rows) for rows in pool])
        rows = (torch.rand(count, steps, generator=generator) * sizes[classes]).long()
        starts = sizes.cumsum(0) - sizes
        images = torch.cat(pool)[starts[classes] + rows]
        one_hot = functional.one_hot(labels, n).float()
        told = torch.cat([torch.zeros(count, 1, n), one_hot[:, :-1]], dim=1)
        seen = (one_hot.cumsum(1) - one_hot).gather(2, labels[..., None])[..., 0].long()
        return Batch(torch.cat([images, told], dim=-1), labels), seen


def trial(trial: Trial) -> Outcome:
    """One net learns to learn the labels within a sequence."""
    config: Episodes = trial.config
    world = World(config, trial.seed, trial.evaluate_on)
    learner = make_learner(trial.arm, config)
    curve: list[float | None] = []
    alignment = []
    started = time.perf_counter()
    every = max(1, config.batches // 20)
    for number in range(config.batches):
        batch, _ = world.draw(world.train, config.batch_size)
        measured = learner.update(batch)
        alignment.append(measured["alignment"])
        if number % every == every - 1:
            curve.append(measured["loss"])
    seconds = time.perf_counter() - started
    batch, seen = world.draw(world.judge, 512)
    right = learner.answers(batch.inputs).argmax(-1) == batch.targets
    again, rare = seen >= 1, batch.targets == 0
    tail = alignment[len(alignment) // 2 :]
    predicts = len(learner.synthetic) > 0
    metrics = {
        "acc": _share(right, again),
        "first_accuracy": _share(right, seen == 0),
        "late_accuracy": _share(right, seen >= 3),
        "rare_accuracy": _share(right, again & rare),
        "alignment": sum(tail) / len(tail) if predicts else None,
    }
    by_presentation = [_share(right, seen == k) for k in range(5)]
    cost = {"seconds": seconds, "milliseconds_per_batch": 1000 * seconds / config.batches}
    return Outcome(metrics, cost, {"loss": curve, "presentation": by_presentation})


def make_learner(arm: str, config: Episodes) -> DecoupledUpdate:
    """The same net with each arm's way of learning."""
    model = MemoryNetwork(
        config.features + config.classes, config.classes, hidden=config.hidden, slots=config.slots
    )
    has_slow = arm in ("neuromodulated", "unpredicted")
    rate = config.lr * config.fast_share if has_slow else config.lr
    return DecoupledUpdate(
        model, torch.optim.Adam(model.parameters(), lr=rate),
        slow=torch.optim.Adam(model.parameters(), lr=config.lr) if has_slow else None,
        synthetic={"memory": SyntheticGradient(32)} if arm == "neuromodulated" else None,
        synthetic_lr=config.synthetic_lr,
        truncation=None if arm == "full" else config.truncation,
        gain=config.gain if has_slow else 0.0,
    )  # fmt: skip


def _share(right: Tensor, where: Tensor) -> float | None:
    return float(right[where].float().mean()) if bool(where.any()) else None


def _checksum(config: Episodes) -> str:
    return data.load(config.dataset).checksum


study = Study(
    id="neuromod-memory",
    summary=(
        "A net with a memory learns, within a sequence of images, which label each class has this time. "
        "What it writes is useful only steps later, beyond where truncated gradients reach: predicted "
        "gradients stand in for them, gated by surprise, and a slow path through the whole sequence keeps"
        " the predictions right."
    ),
    citation="""@article{fernando2020fast,
  title   = {Fast \\& Slow Learning: Incorporating Synthetic Gradients in Neural Memory Controllers},
  author  = {Fernando, Tharindu and Denman, Simon and Sridharan, Sridha and Fookes, Clinton},
  journal = {arXiv preprint arXiv:2011.05438},
  year    = {2020}
}""",
    arms={
        "neuromodulated": Episodes(),
        "unpredicted": Episodes(),
        "truncated": Episodes(),
        "full": Episodes(),
    },
    search={arm: {"lr": (1e-2, 1.5e-2)} for arm in ("neuromodulated", "unpredicted", "truncated", "full")},
    trial=trial,
    seeds=16,
    first_seed=5,  # the five before left the primary claim undecided and served to choose how many are needed
    data=_checksum,
    tune_trials=2,
    claims=(
        exceeds(
            "neuromodulated.acc", "truncated.acc", by=0.02, primary=True,
            text="it is at least 2 points more accurate than truncated gradients with as many fast steps",
        ),
        exceeds(
            "neuromodulated.acc", "full.acc", by=-0.03,
            text="it is within 3 points of the slow path alone (gradients through all of time)",
        ),
        exceeds(
            "neuromodulated.rare_accuracy", "full.rare_accuracy", by=0.03,
            text="on the rare label it is 3 points better than the slow path alone",
        ),
        exceeds(
            "neuromodulated.acc", "unpredicted.acc", by=0.02,
            text="without predicted gradients, fast and slow path together are 2 points worse",
        ),
        at_least(
            "neuromodulated.alignment", 0.3,
            text="predicted and arriving gradients have a cosine of at least 0.3",
        ),
    ),
    scales={
        "smoke": {"batches": 3, "batch_size": 8, "length": 12, "hidden": 16, "slots": 8},
        "paper": {"batches": 3000, "hidden": 200, "slots": 128, "length": 50},
    },
    figures=(
        figures.MetricStrip("acc", title="Accuracy from a class's second image on"),
        figures.LearningCurves(
            "presentation", title="Learning within a sequence", y_title="accuracy",
            x_title="how often the class has been shown, this time included",
        ),
        figures.LearningCurves("loss", title="Training loss", x_title="share of training, 5 %"),
        figures.MetricStrip("rare_accuracy", title="Accuracy on the rare label"),
        figures.CostBars(),
    ),
    notes=(
        "A reconstruction: only the abstract was at hand. Predictors serve the rows of the memory at the "
        "ends of chunks and learn from the slow path's gradients; the neuromodulator is a sigmoid of "
        "standardised surprise. An image never repeats its class within a chunk, so that truncated "
        "gradients see no use of what is written. A key of the memory is the question asked one step "
        "before, which made it learn in thousands of sequences instead of hundreds of thousands. On "
        "development seeds predicted and arriving gradients had a cosine of 0.03 to 0.06 only: which row "
        "will be asked for next cannot be known. Predictions without the slow path did not get above "
        "truncated gradients there (0.23 and 0.22), and fast steps beside the slow path rather cost "
        "accuracy than gained it (0.70 against 0.76 with the slow path alone). So for sequences that fit "
        "into memory, use the slow path alone (truncation=None). The paper's data (Omniglot, "
        "mini-ImageNet) are not used. Two settings per arm were tried."
    ),
)  # fmt: skip
