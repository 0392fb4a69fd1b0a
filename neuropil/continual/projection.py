"""Learning that leaves protected directions alone: what orthogonal-projection methods share.

A layer's weight gradient is (error) x (presynaptic activity). When the activity is replaced by its component
orthogonal to the activity of earlier tasks, the step changes no output on those tasks. HLOP learns the protected
directions by a Hebbian circuit, GPM takes them from a singular value decomposition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD, Optimizer

from neuropil.data.task import Batch, Task
from neuropil.errors import ConfigError, IncompatibleError, SubspaceError, UnknownNameError, nearest
from neuropil.nn.presynaptic import fan_in, synapses
from neuropil.training.plugin import Gradients, Plugin

MOST_PROTECTED = 0.85  # share of a layer's inputs; above it too little is left to learn with


def subspace_sizes(inputs: int, tasks: int, fill: float = 0.8) -> tuple[int, ...]:
    """Directions a layer with `inputs` inputs adds at each of `tasks` tasks.

    The first task, which also brings what all tasks share, gets twice the others' share, and all together take
    `fill` of the inputs.

    >>> subspace_sizes(400, tasks=8)
    (71, 35, 35, 35, 35, 35, 35, 35)
    """
    if not 0 < fill <= MOST_PROTECTED:
        raise SubspaceError(
            f"fill: {fill} of a layer's inputs, expected more than 0 and at most {MOST_PROTECTED}"
        )
    if tasks < 1:
        raise ConfigError(f"tasks: got {tasks}, expected at least 1")
    share = fill * inputs / (tasks + 1)
    first = int(2 * share) if tasks > 1 else int(fill * inputs)
    return (first, *[int(share)] * (tasks - 1))


def check_sizes(name: str, inputs: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """The schedule as given, or SubspaceError when it protects more than `MOST_PROTECTED` of the inputs."""
    if any(size < 0 for size in sizes):
        raise SubspaceError(f"layer {name!r}: subspace sizes {list(sizes)} must not be negative")
    if sum(sizes) > MOST_PROTECTED * inputs:
        raise SubspaceError(
            f"layer {name!r}: subspaces of {sum(sizes)} directions in all exceed {MOST_PROTECTED:.0%} of its "
            f"{inputs} inputs; at most {int(MOST_PROTECTED * inputs)} leave room to learn"
        )
    return tuple(sizes)


def remove_directions(weight_gradient: Tensor, directions: Tensor) -> Tensor:
    """`g - (g H^T) H` on the gradient `[outputs, ...]` of a weight, for `directions` H `[m, fan_in]`."""
    matrix = weight_gradient.flatten(1)
    return (matrix - (matrix @ directions.mT) @ directions).view_as(weight_gradient)


class GradientProjection(Plugin):
    """Plugin base: protected layers of a model, and what else must hold still once a task is protected.

    From the second task on everything outside the protected weights that acts on all tasks (biases,
    thresholds, normalisation) is frozen, since it would bypass the projection. Layers named in `exclude`, for
    instance the heads of single tasks, learn freely.
    """

    def __init__(self, model: nn.Module, *, exclude: Iterable[str] = ()) -> None:
        exclude = tuple(exclude)
        self.layers = synapses(model, exclude=exclude)
        if not self.layers:
            raise ConfigError(
                f"{type(self).__name__}: the model has no linear or convolutional layer to protect"
            )
        self.tasks_learned = 0
        weights = {id(layer.weight) for layer in self.layers.values()}
        free = {id(p) for name in exclude for p in model.get_submodule(name).parameters()}
        self._shared = [p for p in model.parameters() if p.requires_grad and id(p) not in weights | free]
        self._norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        self._names = {name: f"{name}.weight" if name else "weight" for name in self.layers}

    @property
    def bases(self) -> Mapping[str, Tensor]:
        """Protected directions `[m, fan_in]` by layer name, with orthonormal rows."""
        return {}

    def beside(self, plugins: Sequence[Plugin]) -> None:
        """Refuse a second projection: what one of them clears, the other brings back."""
        for other in plugins:
            if other is not self and isinstance(other, GradientProjection):
                raise IncompatibleError(
                    f"{type(self).__name__} beside {type(other).__name__}: two projections one after the other keep "
                    "neither's directions clear; use one of them"
                )

    def confine(self, gradients: Gradients) -> Gradients:
        """What is left of any gradients where every layer may only move in unprotected directions."""
        return self.remove(gradients, self.layers)

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Refuse another model, and optimizers whose step leaves the directions that gradients are confined to."""
        who = type(self).__name__
        trained = {id(p) for p in model.parameters()}
        for name, layer in self.layers.items():
            if id(layer.weight) not in trained:
                raise IncompatibleError(
                    f"{who}: the weight of its layer {name!r} is no parameter of the model that is trained; "
                    f"make {who} from that model"
                )
        if optimizer is None:
            return
        if not isinstance(optimizer, SGD):
            raise IncompatibleError(
                f"{who} with {type(optimizer).__name__}: per-coordinate scaling turns the step back into protected "
                "directions; use torch.optim.SGD without momentum and weight decay"
            )
        for field in ("momentum", "weight_decay"):
            if any(group[field] for group in optimizer.param_groups):
                raise IncompatibleError(
                    f"{who} with SGD {field}: it carries steps back into protected directions; set {field}=0"
                )

    def before_task(self, task: Task | None = None) -> None:
        """Hold still what would bypass the projection, once there is something to protect."""
        if self.tasks_learned:
            self.freeze_shared()

    def detach(self) -> None:
        """Let everything that was held still learn again, as a model that is finished may need."""
        for parameter in self._shared:
            parameter.requires_grad_(True)

    def freeze_shared(self) -> None:
        """Stop learning of parameters that act on all tasks and are not protected."""
        for parameter in self._shared:
            parameter.requires_grad_(False)
            parameter.grad = None

    def before_batch(self, batch: Batch) -> Batch:
        """Keep normalisation statistics of earlier tasks."""
        if self.tasks_learned:
            for norm in self._norms:
                norm.eval()
        return batch

    def after_task(self, task: Task | None = None) -> None:
        """Count the task as learned; from now on it is protected."""
        self.tasks_learned += 1

    def remove(self, gradients: Gradients, names: Iterable[str]) -> Gradients:
        """Gradients with the protected directions removed from the layers `names`."""
        changed = dict(gradients)
        for name in names:
            parameter, basis = self._names[name], self.bases.get(name)
            if basis is not None and len(basis) and parameter in changed:
                changed[parameter] = remove_directions(changed[parameter], basis)
        return changed

    def check_names(self, setting: str, names: Iterable[str]) -> None:
        """Raise UnknownNameError when a setting by layer name names no protected layer."""
        for name in names:
            if name not in self.layers:
                raise UnknownNameError(
                    f"{type(self).__name__}.{setting}: no protected layer {name!r}{nearest(name, self.layers)}"
                )

    def inputs(self, name: str) -> int:
        """Presynaptic inputs of a protected layer."""
        return fan_in(self.layers[name])
