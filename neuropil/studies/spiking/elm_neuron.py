"""The expressive leaky memory neuron adds two digits that it sees one after the other, row by row.

Differs from the paper: real images stand in for spoken digits (the idea of its SHD-Adding task), halved in size so that
a sequence has 42 steps; neurons and budgets are small. The dendrite to be copied is a made-up one of two layers: leaky
sums of synapses, a sigmoid in every branch, a threshold at the soma; the paper copies a cell simulated in detail.

The first run, on seeds 0 to 5, left the primary claim undecided: 12.8 points (7.5 to 18.2), where ten were asked for.
This one is on thirty fresh seeds, run once more when its kernel's order of sums had changed; slow memories are worth
14 points (12 to 17). The neuron is 4.5 points ahead of an LSTM of its size that learned as long
(0.7 to 8.2: the five asked for are not decided, though the first six seeds had said 15); the LSTM starts late, differs
between seeds, and may catch up in a longer training. A step takes a quarter more time than the LSTM's. Ten memories
copy the dendrite nearly as well as twenty; one hardly can.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.bench.claim import exceeds
from neuropil.bench.figures import CostBars, LearningCurves, MetricStrip
from neuropil.bench.figures_maps import Maps
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn import Readout, Sequential
from neuropil.spiking import ELM
from neuropil.studies.spiking._rows import Split, choose, data_checksum, row_spikes


@dataclass(frozen=True)
class SumSetting(Config):
    """Two digits in a row, and their sum at the end."""

    dataset: str = setting("mnist", "images: a name that `neuropil data list` shows")
    train_samples: int = setting(3000, "pairs of images to learn from", low=1)
    judged_samples: int = setting(1000, "pairs of images to be judged on", low=1)
    classes: int = setting(5, "digits 0 ... classes - 1 are added", low=2, high=10)
    gap: int = setting(14, "silent steps between the digits", low=0, high=200)
    memories: int = setting(32, "memories of the neuron", low=1)
    epochs: int = setting(12, "passes over the pairs", low=1)
    batch_size: int = setting(100, "pairs a step", low=1)
    lr: float = setting(1e-2, "first rate of Adam; falls as a cosine", low=0.0)


@dataclass(frozen=True)
class ELMSetting(SumSetting):
    """Settings of the neuron."""

    tau_max: float = setting(100.0, "longest time constant of a memory, in steps", low=1.5, high=10000)
    tau_branch: float = setting(5.0, "time constant of the branches, in steps", low=0.1, high=1000)


@dataclass(frozen=True)
class LSTMSetting(SumSetting):
    """Settings of the LSTM."""

    clip: float = setting(1.0, "largest norm of a gradient", low=0.01, high=1000)


class LastStep(Readout):
    """What the sequence ends with."""

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, classes]` to `[batch, classes]`."""
        return x[-1]


class LSTMClassifier(nn.Module):
    """An LSTM and a linear readout of its last output, with about as many parameters as asked for."""

    def __init__(self, inputs: int, outputs: int, parameters: int) -> None:
        super().__init__()
        hidden = 1
        while self.count(inputs, hidden + 1, outputs) <= parameters:
            hidden += 1
        self.lstm, self.readout = nn.LSTM(inputs, hidden), nn.Linear(hidden, outputs)

    @staticmethod
    def count(inputs: int, hidden: int, outputs: int) -> int:
        """Parameters of one with this many hidden units."""
        return 4 * hidden * (inputs + hidden + 2) + outputs * (hidden + 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[time, batch, inputs]` to `[batch, outputs]`."""
        answer: Tensor = self.readout(self.lstm(x)[0][-1])
        return answer


def make_network(config: SumSetting) -> nn.Module:
    """The network of a setting; an LSTM is as large as the neuron."""
    outputs = 2 * config.classes - 1
    tau = (config.tau_max, config.tau_branch) if isinstance(config, ELMSetting) else (100.0, 5.0)
    elm = ELM(14, config.memories, tau_range=(1.0, tau[0]), tau_branch=tau[1])
    net = Sequential(elm, nn.Linear(config.memories, outputs), LastStep())
    if isinstance(config, LSTMSetting):
        return LSTMClassifier(14, outputs, sum(p.numel() for p in net.parameters()))
    return net


def pairs(split: Split, count: int, config: SumSetting, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spikes `[time, count, 14]` of two images each, and their sums."""
    small = functional.avg_pool2d(split.images.float().unsqueeze(1), 2).squeeze(1)
    usable = (split.labels < config.classes).nonzero().flatten()
    chosen = usable[torch.randint(len(usable), (2, count), generator=generator)]
    first = row_spikes(small[chosen[0]], config.gap, generator)
    second = row_spikes(small[chosen[1]], 0, generator)
    return torch.cat([first, second]), split.labels[chosen].sum(0)


def trial(trial: Trial) -> Outcome:
    """One arm on one choice of images."""
    config: Any = trial.config
    generator = torch.Generator().manual_seed(trial.seed)
    split = choose(config.dataset, config.train_samples, config.judged_samples, trial.seed, trial.evaluate_on)
    x, y = pairs(split.train, config.train_samples, config, generator)
    seen, sums = pairs(split.judged, config.judged_samples, config, generator)
    torch.manual_seed(trial.seed)
    net = make_network(config)
    started = time.perf_counter()
    losses = learn(net, x, y, config, generator)
    seconds = time.perf_counter() - started
    metrics: dict[str, float | None] = {"acc": accuracy(net, seen, sums)}
    arrays: dict[str, Any] = {}
    cost = {
        "seconds": seconds, "milliseconds_per_step": 1000 * seconds / len(losses),
        "parameters": float(sum(p.numel() for p in net.parameters())),
    }  # fmt: skip
    if isinstance(config, ELMSetting):
        with torch.no_grad():
            memories = net[0](seen[:, :1])[0][:, 0]  # type: ignore[index]
        arrays["memories"] = {trial.arm: memories.mT.tolist()}
    if trial.evaluate_on == "test" and trial.arm == "elm":
        metrics |= {
            f"teacher_auc_{m}": copy_dendrite(m, trial.seed, trial.scale == "smoke") for m in (1, 5, 10, 20)
        }
        cost["overhead"] = _overhead(config, x, y)
    return Outcome(metrics, cost, {"loss": _thin(losses)}, arrays)


def learn(net: nn.Module, x: Tensor, y: Tensor, config: Any, generator: torch.Generator) -> list[float]:
    """Adam with a rate that falls as a cosine."""
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    steps = config.epochs * -(-len(y) // config.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(config.epochs):
        for batch in torch.randperm(len(y), generator=generator).split(config.batch_size):
            loss = functional.cross_entropy(net(x[:, batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            if isinstance(config, LSTMSetting):
                nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            optimizer.step()
            cosine.step()
            losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of right sums."""
    answers = [net(part).argmax(-1) for part in x.split(500, dim=1)]
    return float((torch.cat(answers) == y).double().mean())


SYNAPSES, BRANCHES, TEACHER_STEPS = 80, 8, 100


def dendrite(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Input spikes `[time, count, 80]`, and when a made-up dendrite of two layers fires.

    Eight branches leak with 5 to 40 steps and answer with a sigmoid of their sum; the soma fires where their weighted
    sum is among the highest tenth.
    """
    wiring = torch.Generator().manual_seed(0)  # one cell for all seeds
    weight = torch.randn(SYNAPSES, generator=wiring)
    soma = torch.randn(BRANCHES, generator=wiring).sign()
    decay = torch.exp(-1 / torch.linspace(5, 40, BRANCHES)).repeat_interleave(SYNAPSES // BRANCHES)
    x = (torch.rand(TEACHER_STEPS, count, SYNAPSES, generator=generator) < 0.05).float()
    sums = leaky_scan(x, torch.zeros_like(x[0]), decay)[0] * weight
    branches = sums.unflatten(-1, (BRANCHES, -1)).sum(-1)
    spread = (branches - branches.mean((0, 1))) / branches.std((0, 1))
    potential = torch.sigmoid(3 * spread) @ soma
    return x, (potential > potential.quantile(0.9) if potential.numel() < 10**6 else potential > 1.0).float()


def copy_dendrite(memories: int, seed: int, tiny: bool) -> float:
    """Area under the curve (spikes told from silence) of a neuron that copies the dendrite."""
    generator = torch.Generator().manual_seed(seed)
    count, steps = (8, 2) if tiny else (320, 150)
    x, y = dendrite(2 * count, generator)
    torch.manual_seed(seed)
    net = Sequential(ELM(SYNAPSES, memories, tau_range=(1.0, 100.0)), nn.Linear(memories, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = torch.randint(count, (min(count, 32),), generator=generator)
        loss = functional.binary_cross_entropy_with_logits(net(x[:, batch]).squeeze(-1), y[:, batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cosine.step()
    with torch.no_grad():
        score, fires = net(x[:, count:]).flatten(), y[:, count:].flatten() > 0
    rank = torch.empty_like(score, dtype=torch.float64)
    rank[score.argsort()] = torch.arange(1, len(score) + 1, dtype=torch.float64)
    positive = int(fires.sum())
    return float((rank[fires].sum() - positive * (positive + 1) / 2) / (positive * (len(score) - positive)))


def _overhead(config: Any, x: Tensor, y: Tensor) -> float:
    """A step of the neuron over one of the LSTM with as many parameters."""

    def step(net: nn.Module) -> Any:
        def run() -> None:
            net.zero_grad()
            functional.cross_entropy(net(x[:, : config.batch_size]), y[: config.batch_size]).backward()

        return run

    elm = make_network(config)
    lstm = LSTMClassifier(14, 2 * config.classes - 1, sum(p.numel() for p in elm.parameters()))
    return overhead(step(lstm), step(elm), rounds=10)


def _thin(values: list[float], points: int = 100) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


_LR = (5e-3, 1e-2, 2e-2, 4e-2)

study = Study(
    id="elm-neuron",
    summary=(
        "A neuron with leaky memories of many time scales sees two digits row by row and tells their sum. Slow "
        "memories carry the first digit across the gap, and the neuron learns faster than an LSTM of its size."
    ),
    citation="""@inproceedings{spieler2024expressive,
  title     = {The Expressive Leaky Memory Neuron: an Efficient and Expressive Phenomenological Neuron Model Can Solve
               Long-Horizon Tasks},
  author    = {Spieler, Aaron and Rahaman, Nasim and Martius, Georg and Sch{\\"o}lkopf, Bernhard and Levina, Anna},
  booktitle = {International Conference on Learning Representations},
  year      = {2024}
}""",
    arms={
        "elm": ELMSetting(),
        "fast": ELMSetting(tau_max=5.0),
        "lstm": LSTMSetting(),
    },
    search={
        "elm": {"lr": _LR, "tau_branch": (1.0, 5.0, 10.0)},
        "fast": {"lr": _LR, "tau_branch": (1.0, 5.0)},
        "lstm": {"lr": _LR, "clip": (0.3, 1.0, 10.0)},
    },
    trial=trial,
    data=lambda config: data_checksum(config.dataset),
    claims=(
        exceeds(
            "elm.acc", "fast.acc", by=0.1, primary=True,
            text="memories of up to 100 steps are at least 10 points ahead of memories of up to 5",
        ),
        exceeds(
            "elm.acc", "lstm.acc", by=0.05, text="it is at least 5 points ahead of an LSTM of as many parameters"
        ),
        exceeds(
            "elm.teacher_auc_10", "elm.teacher_auc_1", by=0.2,
            text="ten memories copy a two-layer dendrite at least 0.2 (area under the curve) better than one",
        ),
        exceeds("elm.teacher_auc_5", "elm.teacher_auc_1", by=0.0, text="five memories copy it better than one"),
        exceeds("elm.teacher_auc_10", "elm.teacher_auc_5", by=0.0, text="ten memories copy it better than five"),
    ),
    scales={
        "smoke": {"train_samples": 100, "judged_samples": 50, "epochs": 2, "memories": 4},
        "paper": {"dataset": "mnist-full", "train_samples": 50000, "judged_samples": 10000, "memories": 100,
                  "epochs": 60},
    },
    first_seed=6,  # the six before left the primary claim undecided and served to choose how many are needed
    seeds=30,
    figures=(
        MetricStrip("acc", title="Accuracy of the sum"),
        Maps(
            "memories", title="Memories while two digits pass", x="step", y="memory, slowest last",
            caption="Every memory of the neuron for one pair of digits, on the first seed; the gap lies in the middle.",
        ),
        LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        CostBars(("milliseconds_per_step", "parameters")),
    ),
)  # fmt: skip
