"""Astrocytes beside spiking neurons: what was heard once is known long after, and text is read no worse.

Astrocytes recall every symbol, on every seed. Slow membranes do better than expected: with a small enough learning
rate they recall 74 % (the notes' word that they fail held at larger rates only), so that the claim of 30 points over
them is undecided (25.8 points, 14.2 to 37.5); 96 tokens after the symbol, untrained, they are far behind. The gated
recurrent unit, given the same 400 steps, mostly did not begin to learn recall; it does with more. On text the
reader with astrocytes was the better one by 0.18 bits a character over spiking neurons alone, a lead of the short
training on one text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.data import load_text, text_windows
from neuropil.spiking import SpikingTokenMixer

JUDGED = 512  # sequences that recall is judged on
READ = 64  # stretches of text that bits are judged on


@dataclass(frozen=True)
class ReaderSetting(Config):
    """A reader of one block, and what it reads."""

    width: int = setting(48, "width of the stream", low=4)
    hidden: int = setting(48, "neurons with an astrocyte; the other arms get as many parameters", low=4)
    symbols: int = setting(8, "symbols to remember", low=2, high=1000)
    delay: int = setting(64, "tokens between a symbol and the question for it", low=1)
    steps: int = setting(400, "training steps of recall", low=1)
    batch_size: int = setting(32, "sequences per step", low=1)
    lr: float = setting(0.003, "first learning rate of Adam, which falls to zero as a cosine", low=0.0)
    clip: float = setting(1.0, "largest norm of a step's gradient", low=0.001)
    text: str = setting("emma", "text whose bytes are predicted", choices=("emma", "python"))
    text_steps: int = setting(150, "training steps on text", low=1)
    text_length: int = setting(96, "bytes of a stretch of text", low=2)
    text_lr: float = setting(0.01, "first learning rate on text, the same in every arm", low=0.0)


@dataclass(frozen=True)
class SpikingSetting(ReaderSetting):
    """A reader of spiking neurons."""

    tau: float | None = setting(2.0, "membrane time constant in tokens; none: spread over all", low=0.1)
    longest: float = setting(512.0, "longest of the time constants that are spread", low=2.0)


class Reader(nn.Module):
    """Tokens `[token, batch]` to scores of the next `[token, batch, vocabulary]`."""

    def __init__(self, arm: str, config: Any, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.width)
        self.block: nn.Module
        if arm == "gru":
            self.block = nn.GRU(config.width, hidden)
        else:
            self.block = SpikingTokenMixer(
                config.width, hidden, astrocyte=arm == "astro", tau=config.tau, longest=config.longest
            )
        self.head = nn.Linear(hidden if arm == "gru" else config.width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores at every token."""
        scores: Tensor = self.head(self.block(self.embedding(tokens))[0])
        return scores

    def step_by_step(self, tokens: Tensor) -> Tensor:
        """The same scores, one token at a time with the state handed on."""
        state, scores = None, []
        for token in tokens.split(1):
            heard, state = self.block(self.embedding(token), state)
            scores.append(self.head(heard))
        return torch.cat(scores)


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def make_reader(arm: str, config: Any, vocabulary: int) -> Reader:
    """The reader of an arm, as many parameters as the astrocytes' or up to one unit more."""
    hidden = config.hidden
    if arm != "astro":
        like = SpikingSetting(width=config.width, hidden=config.hidden)
        wanted = parameters(Reader("astro", like, vocabulary, config.hidden))
        while parameters(Reader(arm, config, vocabulary, hidden)) < wanted:
            hidden += 1
    return Reader(arm, config, vocabulary, hidden)


def recall(symbols: int, delay: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sequences `[token, batch]`: a symbol, `delay` times the same filler, a question; and the symbols."""
    answers = torch.randint(symbols, (count,), generator=generator)
    tokens = torch.full((delay + 2, count), symbols)
    tokens[0], tokens[-1] = answers, symbols + 1
    return tokens, answers


def train(model: nn.Module, config: Any, steps: int, lr: float, loss_of: Callable[[], Tensor]) -> list[float]:
    """Adam for so many steps; the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def trial(trial: Trial) -> Outcome:
    """Learn delayed recall; then, where it counts, an own reader learns text."""
    config, arm = trial.config, trial.arm
    stream = torch.Generator().manual_seed(3 * trial.seed)
    torch.manual_seed(trial.seed)
    reader = make_reader(arm, config, config.symbols + 2)

    def recall_loss() -> Tensor:
        tokens, answers = recall(config.symbols, config.delay, config.batch_size, stream)
        return nn.functional.cross_entropy(reader(tokens)[-1, :, : config.symbols], answers)

    losses = train(reader, config, config.steps, config.lr, recall_loss)
    judged = torch.Generator().manual_seed(3 * trial.seed + (1 if trial.evaluate_on == "validation" else 2))
    metrics: dict[str, float | None] = {}
    with torch.no_grad():
        for name, delay in (("acc", config.delay), ("acc_half_longer", 3 * config.delay // 2)):
            tokens, answers = recall(config.symbols, delay, JUDGED, judged)
            scores = reader(tokens)[-1, :, : config.symbols]
            metrics[name] = float((scores.argmax(-1) == answers).double().mean())
        small = recall(config.symbols, config.delay, 16, judged)[0]
        apart = float((reader(small) - reader.step_by_step(small)).abs().max())
    metrics["digits_step_by_step"] = min(9.0, -math.log10(max(apart, 1e-9)))
    if trial.evaluate_on == "validation":
        return Outcome(metrics)
    memory = _memory(reader, config, judged) if arm != "gru" else {}
    bits, text_losses = read_text(trial)
    metrics["bits_per_character"] = bits
    plain = make_reader("lif", SpikingSetting(width=config.width, hidden=config.hidden), config.symbols + 2)
    tokens = recall(config.symbols, config.delay, config.batch_size, judged)[0]
    cost = {
        "parameters": float(parameters(reader)),
        "overhead": overhead(_pass(plain, tokens), _pass(reader, tokens), rounds=20),
    }
    curves = {"loss": _thin(losses), "text_bits": [value / math.log(2) for value in _thin(text_losses)]}
    return Outcome(metrics, cost, curves, memory)


def read_text(trial: Trial) -> tuple[float, list[float]]:
    """Bits per character on text that was not read, and the losses while learning, in nats."""
    config = trial.config
    text = load_text(config.text)
    torch.manual_seed(trial.seed)
    reader = make_reader(trial.arm, config, 256)
    places = torch.Generator().manual_seed(3 * trial.seed)

    def loss_on(tokens: Tensor) -> Tensor:
        scores = reader(tokens[:-1])
        return nn.functional.cross_entropy(scores.flatten(0, 1), tokens[1:].flatten())

    def draw(part: Tensor, count: int) -> Tensor:
        return text_windows(part, config.text_length + 1, count, places).T

    losses = train(
        reader,
        config,
        config.text_steps,
        config.text_lr,
        lambda: loss_on(draw(text.train, config.batch_size)),
    )
    with torch.no_grad():
        return float(loss_on(draw(text.test, READ))) / math.log(2), losses


def _pass(reader: Reader, tokens: Tensor) -> Callable[[], object]:
    """Forward and backward, for timing."""

    def run() -> None:
        reader(tokens)[-1].sum().backward()

    return run


def _memory(reader: Reader, config: Any, generator: torch.Generator) -> dict[str, Any]:
    """Spikes of the unit on one sequence, as a figure draws them."""
    unit = reader.block.get_submodule("unit")
    seen: list[Tensor] = []
    handle = unit.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    with torch.no_grad():
        reader(recall(config.symbols, config.delay, 1, generator)[0])
    handle.remove()
    spikes = seen[0][:, 0]
    times, neurons = spikes.nonzero().unbind(1)
    return {
        "raster": {
            "layer": "unit", "times": times.tolist(), "neurons": neurons.tolist(),
            "time_steps": spikes.shape[0], "n_neurons": spikes.shape[1],
        }
    }  # fmt: skip


def _thin(values: list[float], points: int = 100) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


_RATES = (0.002, 0.003, 0.005, 0.01)

study = Study(
    id="astro-snn",
    summary=(
        "Each spiking neuron has an astrocyte whose calcium follows its synapses slowly and modulates its drive and "
        "threshold: a symbol heard once is recalled 64 tokens later, where spiking neurons alone have forgotten it."
    ),
    citation="""@article{shen2023astrocyte,
  title   = {Astrocyte-Enabled Advancements in Spiking Neural Networks for Large Language Modeling},
  author  = {Shen, Guobin and Zhao, Dongcheng and Dong, Yiting and Li, Yang and Li, Jindong and Sun, Kang and Zeng, Yi},
  journal = {arXiv preprint arXiv:2312.07625},
  year    = {2023}
}""",
    arms={
        "astro": SpikingSetting(),
        "lif": SpikingSetting(),
        "slow_lif": SpikingSetting(tau=None),
        "gru": ReaderSetting(lr=0.01),
    },
    search={
        "astro": {"lr": _RATES, "longest": (128.0, 512.0)},
        "lif": {"lr": _RATES, "tau": (2.0, 20.0)},
        "slow_lif": {"lr": _RATES, "longest": (128.0, 512.0)},
        "gru": {"lr": _RATES, "clip": (0.3, 1.0)},
    },
    trial=trial,
    data=lambda config: load_text(config.text).checksum,
    claims=(
        exceeds(
            "astro.acc", "lif.acc", by=0.5, primary=True,
            text="astrocytes recall a symbol 50 points or more above spiking neurons of as many parameters",
        ),
        exceeds(
            "astro.acc", "slow_lif.acc", by=0.3,
            text="and 30 points or more above spiking neurons with membranes as slow as the calcium",
        ),
        at_least("astro.acc", 0.9, text="astrocytes recall at least 90 % of the symbols"),
        exceeds(
            "lif.bits_per_character", "astro.bits_per_character", by=-0.15,
            text="astrocytes read text with at most 0.15 bits a character more than spiking neurons alone",
        ),
        at_least(
            "astro.digits_step_by_step", 4.0,
            text="one token at a time gives the scores of the whole sequence within 0.0001",
        ),
    ),
    scales={
        "smoke": {
            "width": 8, "hidden": 8, "steps": 5, "delay": 12, "text_steps": 3, "text_length": 24, "batch_size": 8,
        },
        "paper": {"width": 512, "hidden": 512, "steps": 3000, "text_steps": 100000, "text_length": 1024},
    },
    figures=(
        figures.LearningCurves("loss", title="Learning to recall", x_title="share of training, %"),
        figures.SpikeRaster(caption="One sequence: a symbol at the first step, filler, the question at the last."),
        figures.MetricStrip("acc", title="Recall after 64 tokens"),
        figures.MetricStrip("acc_half_longer", title="Recall after 96 tokens, not trained"),
        figures.LearningCurves("text_bits", title="Learning to read", x_title="share of training, %"),
        figures.MetricStrip("bits_per_character", title="Bits per character"),
    ),
    notes=(
        "A reconstruction: the paper's equations could not be read, and these are the simplest that fit its abstract; "
        "nothing here says what its language models reach. Every arm has one block and as many parameters (the "
        "neurons without astrocytes are more, to make up for it), and its own search of the learning rate. Text is "
        "read for 150 steps only. Only spikes meet the weights in the spiking arms, "
        "but calcium and membranes are real numbers, and the neurons' residual stream is too; the gated recurrent "
        "unit sends 32-bit numbers everywhere and is what a spiking reader gives up. Slow membranes without "
        "astrocytes fail since they add up whatever comes: the filler drives them above every threshold. Use "
        "astrocytes where a spiking model must keep something for longer than its membranes do; they cost a second "
        "and a third matrix product a step."
    ),
)  # fmt: skip
