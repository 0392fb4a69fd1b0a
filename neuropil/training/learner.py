"""The learner contract: how an update is made. Backpropagation is the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_float
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from neuropil.data.task import Batch, CheckedBatch
from neuropil.errors import IncompatibleError, LabelError, NonFiniteError, ShapeError
from neuropil.kernels.finite import all_finite
from neuropil.kernels.processes import sum_over_processes
from neuropil.nn.axonal_delay import AxonalDelay
from neuropil.nn.delay import DelayLinear
from neuropil.nn.finite import check_finite
from neuropil.nn.postsynaptic import AlphaSynapse, DoubleExponentialSynapse, ExponentialSynapse
from neuropil.training.allowed import restrict
from neuropil.training.plugin import LossContext, Plugin, transform_gradients, unwrapped
from neuropil.training.stepping import add_pull, clear_gradients, make_step, only_pull

Loss = Callable[[Tensor, Tensor], Tensor]

CARRY_TIME = (AxonalDelay, DelayLinear, AlphaSynapse, DoubleExponentialSynapse, ExponentialSynapse)  # errors, back


class Learner:
    """Decides how an update is made: `update(batch)` learns, `predict(x)` answers."""

    model: nn.Module
    optimizer: Optimizer | None = None
    plugins: Sequence[Plugin] = ()
    fabric: Any = None

    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from one batch; returns what is worth following, at least `loss`."""
        raise TypeError(f"{type(self).__name__} must define update(batch)")

    def predict(self, x: Tensor) -> Tensor:
        """Answers `[batch, outputs]` to inputs `[batch, ...]`."""
        raise TypeError(f"{type(self).__name__} must define predict(x)")

    def start_task(self) -> None:
        """A new task begins; what the last one left in the optimizer goes.

        An optimizer that has a `start_task()` of its own decides by itself what stays.
        """
        start = getattr(self.optimizer, "start_task", None)
        if start is not None:
            start()
        elif self.optimizer is not None:
            self.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's own weights."""
        return {"optimizer": self.optimizer.state_dict() if self.optimizer is not None else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


class Backprop(Learner):
    """Gradient descent by backpropagation (through time, where the model has time).

    Args:
        model: `inputs -> output`.
        optimizer: any `torch.optim.Optimizer` over the model's parameters.
        loss: `(output, target) -> scalar`; cross-entropy over the batch's allowed classes by default.
        plugins: what else acts on the batch, the loss and the gradients.
        fabric: a launched `lightning.fabric.Fabric`, which sets model and optimizer up. With several processes
            each learns from its part of a batch, and all together make the step that one would make. Plugins that
            freeze parameters need its strategy "ddp_find_unused_parameters_true".

    Raises:
        NonFiniteError: inputs, loss or a gradient are NaN or infinite; no step has been made.
        LabelError: a target is no output of the model.

    >>> net = nn.Linear(2, 2)
    >>> learner = Backprop(net, torch.optim.SGD(net.parameters(), lr=0.1))
    >>> sorted(learner.update(Batch(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))))
    ['loss']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
        fabric: Any = None,
    ) -> None:
        self.forward = model
        self.optimizer: Optimizer = optimizer
        if fabric is not None:
            self.forward, self.optimizer = fabric.setup(model, optimizer)
        self.model, self.plugins, self.fabric = unwrapped(model), plugins, fabric
        self.loss = loss or functional.cross_entropy

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch."""
        batch, share = self._share(batch)
        for plugin in self.plugins:
            batch = plugin.before_batch(batch)
        if not isinstance(batch, CheckedBatch):  # before they reach the statistics of a normalisation
            check_finite(batch.inputs, "inputs")
        clear_gradients(self.optimizer)
        output = self.answer(batch)
        check_labels(batch.targets, output.shape[-1])
        loss = self.objective(output, batch)
        pull = only_pull(self.plugins) if self.fabric is None and loss.requires_grad else None
        for plugin in self.plugins if pull is None else ():
            loss = plugin.on_loss(loss, LossContext(batch, output))
        value = _finite(self._loss_of_all(loss, share))
        if self.fabric is None:
            torch.autograd.backward(loss)
        else:
            self.fabric.backward(loss * share)
        finite: Sequence[Tensor] = ()
        if pull is not None:  # in place of `on_loss` and `on_gradients`
            pulled, held = add_pull(pull)
            finite = held if pulled.finite and pull.alone else ()
            value = _finite(_sum_of(loss, value, pulled.energy)) if pull.told else value
        if pull is None or not pull.alone:
            transform_gradients(self.model, self.plugins)
        check_gradients(self.model, self.optimizer, finite)
        make_step(self.optimizer)
        for plugin in self.plugins:
            plugin.after_step()
        return {"loss": value}

    def answer(self, batch: Batch) -> Tensor:
        """The output that the loss is taken of; a learner may need more of the batch than its inputs for it."""
        output: Tensor = self.forward(batch.inputs)
        return output

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of an output, before plugins."""
        return self.loss(restrict(output, batch.classes), batch.targets)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The model's output."""
        output: Tensor = self.forward(x)
        return output

    def _share(self, batch: Batch) -> tuple[Batch, float]:
        """This process's part of a batch, and the weight with which all parts' mean is the mean of the batch."""
        processes = 1 if self.fabric is None else self.fabric.world_size
        if processes == 1:
            return batch, 1.0
        count, rank = len(batch.targets), self.fabric.global_rank
        # a process without a sample takes part with a weight of zero
        mine = slice(rank, None, processes) if rank < count else slice(0, 1)
        classes = batch.classes[mine] if isinstance(batch.classes, Tensor) else batch.classes
        part = Batch(batch.inputs[mine], batch.targets[mine], classes)
        return part, len(part.targets) * processes / count if rank < count else 0.0

    def _loss_of_all(self, loss: Tensor, share: float) -> float:
        if self.fabric is None or self.fabric.world_size == 1:
            return float(loss.detach())
        return float(sum_over_processes(loss.detach() * share)) / float(self.fabric.world_size)


class OTTT(Backprop):
    """Online training through time: the loss is taken at every step, errors do not travel back through time.

    The model answers with a sequence `[time, batch, outputs]`: give it spiking cells with
    `temporal_gradient=False`, `Traced` synapses, and no readout. Gradients of all steps are added before the
    optimizer's step; the answer is the mean over time.

    Xiao, Meng, Zhang, He, Lin: Online Training Through Time for Spiking Neural Networks. NeurIPS 2022.
    arXiv:2210.04195

    >>> net = nn.Linear(3, 2)   # [time, batch, 3] -> [time, batch, 2]
    >>> learner = OTTT(net, torch.optim.SGD(net.parameters(), lr=0.1))
    >>> learner.predict(torch.zeros(5, 4, 3)).shape
    torch.Size([4, 2])
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, **settings: Any) -> None:
        super().__init__(model, optimizer, **settings)
        for name, module in model.named_modules():
            if isinstance(module, CARRY_TIME):
                raise IncompatibleError(
                    f"OTTT: layer {name!r} ({type(module).__name__}) carries errors back in time; use TruncatedBPTT"
                )

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """Mean over time steps of the loss at each of them."""
        if output.dim() < 3:
            raise ShapeError(
                f"OTTT: the model's output is {list(output.shape)}, expected [time, batch, outputs]; remove its readout"
            )
        steps = output.shape[0]
        logits = restrict(output, batch.classes).flatten(0, 1)
        return self.loss(logits, batch.targets.repeat(steps))

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Mean output over time."""
        return super().predict(x).mean(0)


def check_labels(targets: Tensor, outputs: int) -> None:
    """Raise LabelError in one line when class targets do not fit the model's outputs."""
    if targets.is_floating_point() or not targets.numel():
        return
    low, high = (int(v) for v in targets.aminmax())
    if low < 0 or high >= outputs:
        raise LabelError(
            f"label {low if low < 0 else high} is out of range: the model has {outputs} outputs, "
            f"expected 0 to {outputs - 1}"
        )


def _sum_of(loss: Tensor, value: float, penalty: float) -> float:
    """The value of a loss and a penalty together, rounded as the sum of tensors would be."""
    return c_float(value + penalty).value if loss.dtype == torch.float32 else float(loss.detach() + penalty)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise NonFiniteError(f"loss is {loss}; lower the learning rate or look at the batch")
    return loss


def check_gradients(
    model: nn.Module, optimizer: Optimizer | None = None, finite: Sequence[Tensor] = ()
) -> None:
    """Raise NonFiniteError naming the first parameter whose gradient is not finite.

    With an `optimizer`, gradients of what it does not step are not looked at; nor are those of parameters that have
    been found `finite`.
    """
    stepped = model.parameters() if optimizer is None else _parameters(optimizer)
    known = {id(parameter) for parameter in finite}
    unknown = [p.grad for p in stepped if p.grad is not None and id(p) not in known]
    if not unknown or all_finite(unknown):
        return
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not all_finite([parameter.grad]):
            norm = float(parameter.grad.norm())
            raise NonFiniteError(f"gradient of {name} is {norm}; no step was made")


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
