"""The plugin contract: acting on a training loop that someone else wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil.data.task import Batch, Task
from neuropil.kernels.springs import Springs

Gradients = dict[str, Tensor]  # by parameter name, as in `model.named_parameters()`

_WRAPPERS = (  # class, attribute that holds what it wraps
    ("_FabricModule", "_original_module"),
    ("DistributedDataParallel", "module"),
    ("DataParallel", "module"),
    ("OptimizedModule", "_orig_mod"),
)


class LossContext(NamedTuple):
    """What a plugin may look at when it changes a loss."""

    batch: Batch
    output: Tensor  # the model's answer to `batch.inputs`


class Pull(NamedTuple):
    """Springs on weights that stand for what a plugin does to the loss, or to the gradients, of a step.

    >>> import torch
    >>> from neuropil.kernels.springs import Springs
    >>> model = nn.Linear(2, 1)
    >>> anchors = [weight.detach().clone() for weight in model.parameters()]
    >>> ones = [torch.ones_like(anchor) for anchor in anchors]
    >>> pull = Pull(Springs(list(model.parameters()), anchors, ones, 0.1), told=True, alone=True)
    """

    springs: Springs
    told: bool  # their energy belongs to the loss: this stands for `on_loss`, else for `on_gradients`
    alone: bool  # nothing else is done to gradients: `on_gradients` may be left out in either case


class Plugin:
    """Acts on somebody else's training loop; every method is optional and does nothing by default.

    A loop calls them in this order: `beside`, `before_fit`, then for each task `before_task`, for each epoch
    `before_epoch`, for each batch `before_batch`, forward, `on_loss`, backward, `on_gradients`, optimizer step,
    `after_step`; then `after_task`; around evaluation `before_eval`; at the end `after_fit`. A hand-written
    loop calls the ones that it needs.
    """

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Look at all plugins of the loop, itself among them, in their order, and refuse what it cannot work with."""

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Look at what will be trained and refuse what cannot work, before any step is made."""

    def before_task(self, task: Task) -> None:
        """A new task begins."""

    def before_epoch(self, epoch: int) -> None:
        """A pass over the task's training samples begins; the model is in training mode."""

    def before_batch(self, batch: Batch) -> Batch:
        """Return the batch to learn from, for instance with remembered samples added."""
        return batch

    def on_loss(self, loss: Tensor, context: LossContext) -> Tensor:
        """Return the loss to minimise, for instance with a penalty added."""
        return loss

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Return the gradients to step with; pure: the tensors given are not changed."""
        return gradients

    def take_gradients(self, gradients: Gradients) -> Gradients:
        """As `on_gradients`, with gradients that nobody looks at any more: they may be changed in place.

        A loop asks the first of its plugins, before any other has seen them; `transform_gradients` does.
        """
        return self.on_gradients(gradients)

    def as_pull(self) -> Pull | None:
        """What `on_loss` or `on_gradients` would do now, where it is a pull of springs on weights; else None.

        A loop may add it to the gradients by itself instead of calling them, in the same pass in which it looks at
        them, where no other plugin acts on loss or gradients; `Backprop` does. The step is the same.
        """
        return None

    def after_step(self) -> None:
        """The optimizer has made its step."""

    def after_task(self, task: Task) -> None:
        """The task has been learned; its training samples may be read once more."""

    def before_eval(self) -> None:
        """The model is about to be judged."""

    def after_fit(self) -> None:
        """All tasks are done."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here: tensors, numbers, strings, and dicts and lists of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of Fabric, DistributedDataParallel and `torch.compile`.

    Plugins know its parameters by the names that they have there.

    >>> net = nn.parallel.DataParallel(nn.Linear(2, 2))
    >>> unwrapped(net)
    Linear(in_features=2, out_features=2, bias=True)
    """
    for wrapper, inside in _WRAPPERS:
        if any(kind.__name__ == wrapper for kind in type(model).__mro__):
            return unwrapped(getattr(model, inside))
    return model


def gradients_of(model: nn.Module) -> Gradients:
    """Gradients present on a model's parameters, by name."""
    return {name: p.grad for name, p in unwrapped(model).named_parameters() if p.grad is not None}


def acts(plugin: Plugin, *names: str, as_in: type[Plugin] = Plugin) -> bool:
    """Whether any of a plugin's methods of these names is another than that of `Plugin`, or of the class `as_in`.

    >>> acts(Plugin(), "on_loss")
    False
    """
    kind, own = type(plugin), getattr(plugin, "__dict__", ())
    # who answers for others may answer with anything
    if kind.__getattribute__ is not object.__getattribute__:
        return True
    for name in names:  # noqa: SIM110  (once a step: a generator costs as much as the questions)
        if getattr(kind, name) is not getattr(as_in, name) or name in own:
            return True
    return False


def transform_gradients(model: nn.Module, plugins: Iterable[Plugin]) -> None:
    """Pass the model's gradients through every plugin in turn, between `backward()` and `step()`.

    A parameter whose gradient a plugin leaves out is not stepped.
    """
    plugins = tuple(plugin for plugin in plugins if acts(plugin, "on_gradients", "take_gradients"))
    if not plugins:
        return
    named = list(unwrapped(model).named_parameters())
    gradients = {name: p.grad for name, p in named if p.grad is not None}
    first, *others = plugins
    gradients = first.take_gradients(gradients)
    for plugin in others:
        gradients = plugin.on_gradients(gradients)
    for name, parameter in named:
        parameter.grad = gradients.get(name)
