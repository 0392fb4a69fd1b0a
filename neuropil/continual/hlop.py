"""HLOP: Hebbian learning based orthogonal projection.

Xiao, Meng, Zhang, He, Lin: Hebbian Learning based Orthogonal Projection for Continual Learning of Spiking Neural
Networks. ICLR 2024. arXiv:2402.11984
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuropil.continual.hebbian_subspace import HebbianSubspace
from neuropil.continual.projection import GradientProjection, check_sizes, subspace_sizes
from neuropil.data.task import Task
from neuropil.errors import IncompatibleError, ShapeError, SubspaceError
from neuropil.nn.presynaptic import Synapse, fan_in, observe, rows, weight_gradient
from neuropil.training.plugin import Gradients, Plugin, transform_gradients  # noqa: F401  (transform_gradients: doctest)


@dataclass
class _Site:
    """A protected layer with its circuit, and the activity that entered it in the pass under way."""

    layer: Synapse
    circuit: HebbianSubspace
    sizes: tuple[int, ...]
    presynaptic: bool  # project activity, or finished gradients (the same in the linear circuit)
    activity: Tensor | None = None
    hides_weight: bool = False  # while the layer runs: autograd must not add the ordinary weight gradient
    handles: list[RemovableHandle] = field(default_factory=list)


class HLOP(GradientProjection):
    """Continual learning by Hebbian orthogonal projection, on any model with linear or convolutional layers.

    Each protected layer gets a `HebbianSubspace` on its presynaptic activity (spikes, analog inputs, or the
    traces of online training). While a task is learned, new subspace neurons learn its activity and the layer's
    weight gradient uses the activity's component orthogonal to the neurons frozen after earlier tasks. The
    forward pass and the errors are untouched, so it works with backpropagation through time, online and
    rate-based training, feedback alignment and sign-symmetric feedback alike.

    In a loop of your own call `before_task()` and `after_task()` around each task and pass gradients through
    `on_gradients` between `backward()` and `step()`. Needs SGD without momentum and weight decay. Beside plugins that
    add to the loss or change gradients, finished gradients are projected as well: tell it of them by `beside(plugins)`.

    Args:
        model: attached by forward hooks; `detach()` removes them.
        tasks: number of tasks that the default schedule of subspace sizes is made for.
        fill: share of a layer's inputs that the default schedule uses in all, at most 0.85.
        sizes: own schedules by layer name: subspace neurons to add at each task.
        lr: Hebbian rate, one for all or by layer name; `None` derives it from the activity.
        levels: lateral time steps of the spiking circuit, `None` for the linear one.
        rate: weights `[time]` that turn activity in time, `[time, batch, ...]` or `[time * batch, ...]`, into a
            weighted firing rate for the Hebbian update; `None` learns from every time step.
        sample_rows: learn from this many activity rows per batch, drawn anew; `None` from all.
        exclude: layers that learn freely, for instance per-task heads.

    Raises:
        SubspaceError: a schedule protects more than 0.85 of a layer's inputs, or has fewer tasks than are met.
        UnknownNameError: a name in `sizes`, `lr` or `exclude` is no layer that can be protected.
        IncompatibleError: an optimizer other than plain SGD, a parametrized weight or a grouped convolution.

    >>> net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> hlop = HLOP(net, tasks=2)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> for task in range(2):
    ...     x, y = torch.randn(64, 20), torch.arange(64) % 3
    ...     hlop.before_task()
    ...     nn.functional.cross_entropy(net(x), y).backward()
    ...     transform_gradients(net, [hlop])
    ...     optimizer.step()
    ...     hlop.after_task()
    >>> hlop.bases["0"].shape
    torch.Size([15, 20])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        tasks: int = 10,
        fill: float = 0.8,
        sizes: Mapping[str, Sequence[int]] | None = None,
        lr: float | Mapping[str, float] | None = None,
        iterations: int = 5,
        momentum: float = 0.9,
        levels: int | None = None,
        rate: Tensor | None = None,
        sample_rows: int | None = None,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, exclude=exclude)
        self.rate, self.sample_rows, self.generator = rate, sample_rows, generator
        self.learning = False
        self._alone = True  # nothing else adds to the gradients, as far as it was told
        self.check_names("sizes", sizes or ())
        self.check_names("lr", lr if isinstance(lr, Mapping) else ())
        self._inputs = 0  # length of the model's present input
        self._handle = self._watch_inputs(model)
        self._sites: dict[str, _Site] = {}
        for name, layer in self.layers.items():
            n = fan_in(layer)
            schedule = sizes[name] if sizes and name in sizes else subspace_sizes(n, tasks, fill)
            circuit = HebbianSubspace(
                n, lr=lr.get(name) if isinstance(lr, Mapping) else lr, iterations=iterations,
                momentum=momentum, levels=levels, generator=generator,
            )  # fmt: skip
            circuit.to(layer.weight.detach())
            presynaptic = isinstance(layer, nn.Linear) or levels is not None
            site = _Site(layer, circuit, check_sizes(name, n, schedule), presynaptic)
            self._attach(site)
            self._sites[name] = site

    @property
    def bases(self) -> Mapping[str, Tensor]:
        """Protected directions `[m, fan_in]` by layer name."""
        return {name: site.circuit.frozen for name, site in self._sites.items()}

    @property
    def subspaces(self) -> Mapping[str, HebbianSubspace]:
        """The lateral circuits by layer name."""
        return {name: site.circuit for name, site in self._sites.items()}

    def before_task(self, task: Task | None = None) -> None:
        """Grow every layer's subspace for a new task and begin to learn it."""
        for name, site in self._sites.items():
            if self.tasks_learned >= len(site.sizes):
                raise SubspaceError(
                    f"layer {name!r}: task {self.tasks_learned + 1} of a schedule made for {len(site.sizes)} tasks; "
                    "give HLOP the number of tasks or longer sizes"
                )
        super().before_task(task)
        for site in self._sites.values():
            site.circuit.to(site.layer.weight.detach())  # the model may have moved
            site.circuit.grow(site.sizes[self.tasks_learned])
        self.learning = True

    def after_task(self, task: Task | None = None) -> None:
        """Freeze the subspaces: what the task used is protected from now on."""
        for site in self._sites.values():
            site.circuit.freeze()
        self.learning = False
        super().after_task(task)

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Refuse a second projection; see whether anything else adds to the gradients."""
        super().beside(plugins)
        plain = (Plugin.on_loss, Plugin.on_gradients)
        self._alone = all((type(p).on_loss, type(p).on_gradients) == plain for p in plugins if p is not self)

    def on_gradients(self, gradients: Gradients) -> Gradients:
        """Project the weight gradients that are not made of projected activity alone."""
        if not self.learning:
            return gradients
        for name, site in self._sites.items():
            if self._names[name] in gradients and not site.circuit.has_met_activity:
                raise IncompatibleError(
                    f"HLOP: layer {name!r} has a gradient, but no activity to learn from: the model was run without "
                    "gradients or in evaluation mode; use a learner that backpropagates"
                )
        if not self._alone:  # a penalty pulls at the weights themselves
            return self.confine(gradients)
        return self.remove(gradients, (name for name, site in self._sites.items() if not site.presynaptic))

    def detach(self) -> None:
        """Remove the hooks from the model and let everything learn again."""
        self._handle.remove()
        for site in self._sites.values():
            while site.handles:
                site.handles.pop().remove()
        super().detach()

    def state_dict(self) -> dict[str, Any]:
        """Subspaces and progress."""
        return {
            "tasks_learned": self.tasks_learned,
            "learning": self.learning,
            "subspaces": {name: circuit.state_dict() for name, circuit in self.subspaces.items()},
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.tasks_learned, self.learning = state["tasks_learned"], state["learning"]
        for name, site in self._sites.items():
            site.circuit.load_state_dict(state["subspaces"][name])
            site.circuit.to(site.layer.weight.detach())
        if self.generator is not None and state["generator"] is not None:
            self.generator.set_state(state["generator"])
        if self.tasks_learned:
            self.freeze_shared()

    def _watch_inputs(self, model: nn.Module) -> RemovableHandle:
        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module is model:
                self._inputs = len(args[0]) if args and isinstance(args[0], Tensor) else 0

        return model.register_forward_pre_hook(note)

    def _attach(self, site: _Site) -> None:
        # A deep copy of the model carries these hooks too, but is another model: they must leave it alone.
        def active(layer: nn.Module) -> bool:
            return layer is site.layer and self.learning and layer.training and torch.is_grad_enabled()

        def enter(layer: nn.Module, args: Any) -> None:
            site.activity = None
            # The ordinary weight gradient is not wanted where the projected one takes its place.
            if active(layer) and site.presynaptic and len(site.circuit.frozen):
                site.hides_weight = site.layer.weight.requires_grad
                site.layer.weight.requires_grad_(False)

        def see(activity: Tensor) -> None:
            if active(site.layer):
                site.activity = activity

        def leave(layer: nn.Module, args: Any, output: Any) -> Any:
            if layer is not site.layer:
                return None
            hidden, activity = site.hides_weight, site.activity
            site.hides_weight, site.activity = False, None
            if hidden:
                site.layer.weight.requires_grad_(True)
            if output is None or activity is None:  # the layer has failed, or is not learning
                return None
            factor = self._learn(site, activity)
            if not hidden or factor is None:
                return None
            if isinstance(output, tuple):  # a stateful layer
                return (weight_gradient(site.layer, output[0], factor), *output[1:])
            return weight_gradient(site.layer, output, factor)

        site.handles = [
            site.layer.register_forward_pre_hook(enter),
            observe(site.layer, see),
            site.layer.register_forward_hook(leave, always_call=True),
        ]

    @torch.no_grad()
    def _learn(self, site: _Site, activity: Tensor) -> Tensor | None:
        """Show the circuit an activity; return the factor for the weight gradient if it is projected here."""
        with torch.autocast(activity.device.type, enabled=False):  # orthogonality needs the full precision
            return self._learn_exactly(site, activity.to(site.circuit.frozen))

    def _learn_exactly(self, site: _Site, activity: Tensor) -> Tensor | None:
        circuit = site.circuit
        factor = None
        if site.presynaptic and len(circuit.frozen):
            x = rows(site.layer, activity)
            factor = x - circuit.project(x)
        if self.rate is None and self.sample_rows is None and site.presynaptic:
            x = rows(site.layer, activity)
            circuit.update(x, factor if factor is not None else x)
        else:
            circuit.update(self._hebbian_rows(site.layer, activity))
        return factor

    def _hebbian_rows(self, layer: Synapse, activity: Tensor) -> Tensor:
        """Rows that the circuit learns from: every time step's, or firing rates; all, or a sample of them."""
        features = activity.shape[-1:] if isinstance(layer, nn.Linear) else activity.shape[-3:]
        if self.rate is not None and self._has_time(activity, len(features)):
            weights = self.rate.to(activity)
            samples, left = divmod(activity.numel(), len(weights) * features.numel())
            if left:
                raise ShapeError(
                    f"HLOP.rate: {len(weights)} time steps do not divide an activity of {list(activity.shape)}"
                )
            activity = torch.tensordot(weights, activity.reshape(len(weights), samples, *features), 1)
        x = rows(layer, activity)
        if self.sample_rows is not None and len(x) > self.sample_rows:
            x = x[torch.randint(len(x), (self.sample_rows,), generator=self.generator)]
        return x

    def _has_time(self, activity: Tensor, feature_dims: int) -> bool:
        # A static input is projected once, before time begins: it is its own rate.
        return activity.dim() > feature_dims + 1 or 0 < self._inputs < len(activity)
