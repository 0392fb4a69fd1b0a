"""A recurrent network that writes the weights of another one, chunk after chunk, for the task it is told.

Chandra, Varshney, Srijith, Gupta: Continual Learning with Dependency Preserving Hypernetworks. WACV 2023.
arXiv:2209.07712. Hypernetworks for continual learning: von Oswald, Henning, Grewe, Sacramento. ICLR 2020.
arXiv:1906.00695. The growth rule and the order of chunks are reconstructions.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuropil.data.task import Task
from neuropil.errors import ConfigError, IncompatibleError
from neuropil.training.fisher import fisher_diagonal
from neuropil.training.plugin import LossContext, Plugin, unwrapped


class HyperNetwork(nn.Module):
    """Base of networks that write a target's weights in equal chunks, from an embedding of the task and of the chunk.

    A subclass defines `states(embedded)`, `[chunks, tasks, 2 embedding]` to `[chunks, tasks, width]`. Each chunk is a
    linear function of its state, scaled so that the target's weights start with variance `2 / fan_in` on average.

    In training `forward` answers with the weights of `task`, in evaluation with those of `answer_as`, or, where that is
    None, for each sample with those of the task whose answer has the least entropy, of the tasks begun so far.
    """

    task: int
    answer_as: int | None
    scale: Tensor

    def __init__(self, target: nn.Module, *, tasks: int, embedding: int, width: int, chunk: int) -> None:
        super().__init__()
        name = type(self).__name__
        for field, value in (("tasks", tasks), ("embedding", embedding), ("width", width), ("chunk", chunk)):
            if value < 1:
                raise ConfigError(f"{name}.{field}: got {value}, expected at least 1")
        if any(True for _ in target.buffers()):
            raise IncompatibleError(
                f"{name}: the target has buffers, as normalisations do, which no task writes"
            )
        self.shapes = {field: p.shape for field, p in target.named_parameters()}
        self.size = sum(shape.numel() for shape in self.shapes.values())
        if not self.size:
            raise ConfigError(f"{name}: the target has no parameters to write")
        self._target = (copy.deepcopy(target).to("meta"),)  # in a tuple: its weights are not this module's
        self.chunk, self.task, self.answer_as = chunk, 0, None
        chunks = math.ceil(self.size / chunk)
        self.task_embeddings = nn.ParameterList([nn.Parameter(torch.randn(embedding)) for _ in range(tasks)])
        self.chunk_embeddings = nn.Parameter(torch.randn(chunks, embedding))
        self.write = nn.Linear(width, chunk)
        self.register_buffer("scale", _fan_in_scale(self.shapes), persistent=False)

    def states(self, embedded: Tensor) -> Tensor:
        """States `[chunks, tasks, width]` from embeddings `[chunks, tasks, 2 embedding]`."""
        raise TypeError(f"{type(self).__name__} must define states(embedded)")

    def flat(self, tasks: Sequence[int]) -> Tensor:
        """Weights `[tasks, size]` for each of `tasks`, all parameters of the target in one row."""
        for task in tasks:
            if not 0 <= task < len(self.task_embeddings):
                raise ConfigError(
                    f"{type(self).__name__}: task {task}, expected 0 to {len(self.task_embeddings) - 1}; "
                    "make it with more tasks"
                )
        told = torch.stack([self.task_embeddings[task] for task in tasks])
        chunks = len(self.chunk_embeddings)
        embedded = torch.cat(
            [told.expand(chunks, -1, -1), self.chunk_embeddings[:, None].expand(-1, len(tasks), -1)], -1
        )
        written = self.write(self.states(embedded)).transpose(0, 1).flatten(1)
        scaled: Tensor = written[:, : self.size] * self.scale
        return scaled

    def weights(self, task: int) -> dict[str, Tensor]:
        """The target's parameters for a task, by name."""
        pieces = self.flat([task])[0].split([shape.numel() for shape in self.shapes.values()])
        return {
            name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def materialize(self, task: int) -> nn.Module:
        """A target of its own with a task's weights as ordinary parameters."""
        made = copy.deepcopy(self._target[0]).to_empty(device=self.chunk_embeddings.device)
        with torch.no_grad():
            for name, value in self.weights(task).items():
                made.get_parameter(name).copy_(value)
        return made.to(self.chunk_embeddings.dtype).train(self.training)

    def forward(self, x: Tensor, task: int | None = None) -> Tensor:
        """The target's answer to `x` with the weights of `task`; None chooses as the class says."""
        if task is None and self.training:
            task = self.task
        elif task is None:
            task = self.answer_as if self.answer_as is not None else (0 if self.task == 0 else None)
        if task is not None:
            return self._answer(x, task)
        answers = torch.stack([self._answer(x, known) for known in range(self.task + 1)])
        entropy = torch.distributions.Categorical(logits=answers.detach()).entropy()  # [tasks, batch, ...]
        surest = entropy.argmin(0)[None, ..., None].expand(1, *answers.shape[1:])
        return answers.gather(0, surest)[0]

    def train(self, mode: bool = True) -> HyperNetwork:
        """Training or evaluation mode, of the target too."""
        for target in getattr(self, "_target", ()):
            target.train(mode)
        super().train(mode)
        return self

    def _answer(self, x: Tensor, task: int) -> Tensor:
        answer: Tensor = functional_call(self._target[0], self.weights(task), (x,))
        return answer

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Start with unscaled weights of variance 1."""
        self.write.bias.zero_()
        self.write.weight.normal_()
        self.scale, scale = torch.ones_like(self.scale), self.scale
        self.write.weight.div_(self.flat(range(len(self.task_embeddings))).std().clamp_min(1e-6))
        self.scale = scale


class RecurrentHyperNetwork(HyperNetwork):
    """Hypernetwork that writes a target's weights one chunk after the other and remembers what it wrote.

    A gated recurrent network (GRU) reads at every step the embedding of the task and of the next chunk; its state gives
    the chunk. All tasks share it, so that many targets are kept in the parameters of about one. Beside
    `HyperNetworkRegularizer` it learns a task without rewriting the targets of earlier ones.

    Optimizers want to be Adam at 0.001 to 0.01. Each step of training costs a pass through all chunks in sequence.

    Args:
        target: any model without buffers; its present weights are not used.
        tasks: number of tasks it can be told.
        embedding: numbers that stand for a task, and for a chunk.
        hidden: units of the recurrent network.
        chunk: weights that are written in one step.

    Shapes: what the target takes to what it gives.

    Raises:
        ConfigError: a size below 1, or a task beyond `tasks`.
        IncompatibleError: a target with buffers.

    >>> target = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> net = RecurrentHyperNetwork(target, tasks=2, hidden=12, chunk=20)
    >>> net(torch.randn(4, 6), task=1).shape
    torch.Size([4, 3])
    >>> sorted(net.weights(0))
    ['0.bias', '0.weight', '2.bias', '2.weight']
    """

    def __init__(
        self, target: nn.Module, *, tasks: int = 5, embedding: int = 8, hidden: int = 32, chunk: int = 1024
    ) -> None:
        super().__init__(target, tasks=tasks, embedding=embedding, width=hidden, chunk=chunk)
        self.recurrent = nn.GRU(2 * embedding, hidden)
        self._calibrate()

    def states(self, embedded: Tensor) -> Tensor:
        """States of the recurrent network at every chunk."""
        states: Tensor = self.recurrent(embedded)[0]
        return states

    @torch.no_grad()
    def grow(self, units: int) -> None:
        """Add units for what is still to come; every task's weights stay exactly as they are.

        New units read old ones, old ones do not read new ones yet, and nothing is written by new ones yet. All
        recurrent parameters and the writing layer are new: make a new optimizer.
        """
        if units < 1:
            raise ConfigError(f"RecurrentHyperNetwork.grow: got {units} units, expected at least 1")
        h = self.recurrent.hidden_size
        old = dict(self.recurrent.named_parameters())
        grown = nn.GRU(self.recurrent.input_size, h + units).to(self.write.weight)
        new = dict(grown.named_parameters())
        for gate in range(3):  # reset, update, new
            was, now = slice(gate * h, (gate + 1) * h), slice(gate * (h + units), gate * (h + units) + h)
            for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
                new[name][now] = old[name][was]
            new["weight_hh_l0"][now] = 0
            new["weight_hh_l0"][now, :h] = old["weight_hh_l0"][was]
        write = nn.Linear(h + units, self.chunk).to(self.write.weight)
        write.weight.zero_()
        write.weight[:, :h] = self.write.weight
        write.bias.copy_(self.write.bias)
        self.recurrent, self.write = grown, write


class ChunkedHyperNetwork(HyperNetwork):
    """Hypernetwork without memory: a perceptron writes each chunk by itself (von Oswald et al. 2020).

    Arguments as of `RecurrentHyperNetwork`, with the widths of the perceptron's layers as `hidden`.

    >>> net = ChunkedHyperNetwork(nn.Linear(6, 3), tasks=2, hidden=(16, 12), chunk=10)
    >>> net(torch.randn(4, 6), task=0).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        target: nn.Module,
        *,
        tasks: int = 5,
        embedding: int = 8,
        hidden: Sequence[int] = (32, 32),
        chunk: int = 1024,
    ) -> None:
        if not hidden:
            raise ConfigError("ChunkedHyperNetwork.hidden: no layers, expected at least one width")
        super().__init__(target, tasks=tasks, embedding=embedding, width=hidden[-1], chunk=chunk)
        widths = (2 * embedding, *hidden)
        layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        self.body = nn.Sequential(*layers)
        self._calibrate()

    def states(self, embedded: Tensor) -> Tensor:
        """States of the perceptron at every chunk, each by itself."""
        states: Tensor = self.body(embedded)
        return states


def hypernetwork_drift(now: Tensor, before: Tensor, importance: Tensor | None = None) -> Tensor:
    """Mean over tasks of `sum_i importance_i (now_i - before_i)^2`, weights `[tasks, size]`; importance 1 by default.

    >>> hypernetwork_drift(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]))
    tensor(5.)
    """
    moved = (now - before).square()
    return (moved if importance is None else importance * moved).sum(-1).mean()


class HyperNetworkRegularizer(Plugin):
    """Lets a hypernetwork learn a task while what it writes for earlier tasks stays.

    Before a task the weights written for all earlier ones are noted; later losses carry `strength` times the mean
    squared distance from them (`hypernetwork_drift`, a sum over weights). No data of earlier tasks is needed. A
    finished task's embedding is frozen. Strengths of 0.1 and more hold; 0.01 is much like none.

    It counts tasks by itself and tells the model which one is learned. Give every task a fresh optimizer state, as the
    Trainer does.

    Args:
        model: a `HyperNetwork`, or any model together with `written`.
        strength: weight of the distance, at least 0.
        per_step: earlier tasks that a step looks at, drawn anew; None for all.
        importance: weigh weights by their Fisher information for the task's answers, of mean 1 over a task's weights.
        fisher_samples: training samples that it is estimated on.
        written: `task -> weights [size]`, for a hypernetwork of one's own.
        generator: draws the tasks of a step, and the samples.

    Raises:
        ConfigError: a setting out of range.
        IncompatibleError: a model that is no `HyperNetwork`, without `written`.

    >>> net = RecurrentHyperNetwork(nn.Linear(4, 2), tasks=2, hidden=8, chunk=5)
    >>> keeper = HyperNetworkRegularizer(net, strength=1.0)
    >>> keeper.before_task()
    >>> keeper.after_task()      # task 0 is learned
    >>> keeper.before_task()
    >>> net.task, keeper.drift().item()
    (1, 0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        strength: float = 1.0,
        per_step: int | None = 1,
        importance: bool = False,
        fisher_samples: int = 256,
        written: Callable[[int], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not 0 <= strength < math.inf:
            raise ConfigError(f"HyperNetworkRegularizer.strength: got {strength}, expected at least 0")
        if per_step is not None and per_step < 1:
            raise ConfigError(f"HyperNetworkRegularizer.per_step: got {per_step}, expected at least 1")
        self.model = unwrapped(model)
        if not isinstance(self.model, HyperNetwork) and (written is None or importance):
            raise IncompatibleError(
                f"HyperNetworkRegularizer: {type(self.model).__name__} is no HyperNetwork; "
                "give `written`, and no importance"
            )
        self.strength, self.per_step, self.importance = strength, per_step, importance
        self.fisher_samples, self.written, self.generator = fisher_samples, written, generator
        self.learned = 0
        self._before: Tensor | None = None  # [tasks, size]
        self._importance: list[Tensor] = []

    def before_task(self, task: Task | None = None) -> None:
        """Note what is written for every task so far."""
        if isinstance(self.model, HyperNetwork):
            self.model.task = self.learned
        with torch.no_grad():
            self._before = self._write(range(self.learned)).clone() if self.learned else None

    def drift(self) -> Tensor:
        """Distance of what is written now for earlier tasks, or for some drawn ones, from what was noted."""
        if self._before is None:
            return torch.zeros(())
        tasks = list(range(len(self._before)))
        if self.per_step is not None and self.per_step < len(tasks):
            tasks = torch.randperm(len(tasks), generator=self.generator)[: self.per_step].tolist()
        importance = torch.stack([self._importance[task] for task in tasks]) if self.importance else None
        return hypernetwork_drift(self._write(tasks), self._before[tasks], importance)

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Add the distance."""
        return loss + self.strength * self.drift() if self._before is not None and self.strength else loss

    def after_task(self, task: Task | None = None) -> None:
        """The task is learned: its embedding is frozen."""
        if isinstance(self.model, HyperNetwork):
            self.model.task_embeddings[self.learned].requires_grad_(False)
            if self.importance:
                self._importance.append(self._fisher(self.model, task))
        self.learned += 1
        self._before = None

    def detach(self) -> None:
        """Let embeddings of learned tasks learn again."""
        if isinstance(self.model, HyperNetwork):
            self.model.task_embeddings.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Progress, what is held, and the generator's position."""
        return {
            "learned": self.learned,
            "before": self._before,
            "importance": list(self._importance),
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.learned, self._before = state["learned"], state["before"]
        self._importance = list(state["importance"])
        if isinstance(self.model, HyperNetwork):
            self.model.task = min(self.learned, len(self.model.task_embeddings) - 1)
            for embedding in list(self.model.task_embeddings)[: self.learned]:
                embedding.requires_grad_(False)
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])

    def _write(self, tasks: Sequence[int]) -> Tensor:
        if self.written is not None:
            return torch.stack([self.written(task) for task in tasks])
        return self.model.flat(tasks)  # type: ignore[operator, no-any-return]

    def _fisher(self, model: HyperNetwork, task: Task | None) -> Tensor:
        if task is None:
            raise ConfigError(
                "HyperNetworkRegularizer: importance is estimated on a task; call after_task(task)"
            )
        fisher = fisher_diagonal(
            model.materialize(self.learned), task.train, count=self.fisher_samples, classes=task.classes,
            generator=self.generator,
        )  # fmt: skip
        values = torch.cat([fisher[name].flatten() for name in model.shapes])
        return values / values.mean().clamp_min(1e-12)


def _fan_in_scale(shapes: dict[str, torch.Size]) -> Tensor:
    """Scale `[size]` of every weight: `sqrt(2 / fan_in)` for matrices and kernels, 0.1 for vectors."""
    scales = [
        torch.full((shape.numel(),), math.sqrt(2 / shape[1:].numel()) if len(shape) > 1 else 0.1)
        for shape in shapes.values()
    ]
    return torch.cat(scales) if scales else torch.zeros(0)
