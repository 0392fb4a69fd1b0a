"""Probes of whether a network can still learn: active and dormant units, the rank of its features, its weights' size.

They work on any model: what is looked at are the outputs of its activation functions, whether they are modules or
calls in `forward`, and the spikes of its spiking layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuropil.errors import ConfigError, ShapeError, UnknownNameError, nearest
from neuropil.nn.stateful import Stateful
from neuropil.training.evaluating import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped

_ACTIVATIONS = {  # names of the operations as torch dispatches them
    "relu", "relu_", "leaky_relu", "leaky_relu_", "elu", "elu_", "gelu", "gelu_", "silu", "silu_", "mish", "mish_",
    "hardtanh", "hardtanh_", "hardswish", "hardswish_", "softplus", "threshold", "threshold_", "clamp_min",
    "clamp_min_", "tanh", "tanh_", "sigmoid", "sigmoid_", "_prelu_kernel",
}  # fmt: skip


@torch.no_grad()
def hidden_activity(
    model: nn.Module, x: Shaped[Tensor, "batch ..."], *, layers: Iterable[str] | None = None
) -> dict[str, Shaped[Tensor, "samples ..."]]:
    """What the hidden units of a model do for inputs `x`, `[samples, units]` or `[samples, channels, ...]` by layer.

    The model runs once, in evaluation mode, and is left as it was. Without `layers`, every activation function counts,
    named by the module that calls it, and every spiking layer, whose time steps are samples. With `layers`, the outputs
    of the modules of these names count as they are.

    Raises UnknownNameError for a layer that is not there, ConfigError when no activation is found.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> {name: list(activity.shape) for name, activity in hidden_activity(net, torch.rand(5, 4)).items()}
    {'1': [5, 8]}
    """
    seen: dict[str, list[Tensor]] = {}
    modules = dict(model.named_modules())
    chosen = None if layers is None else set(layers)
    for name in chosen or ():
        if name not in modules:
            raise UnknownNameError(f"layers: the model has no layer {name!r}{nearest(name, modules)}")
    with evaluating(model), _listening(modules, chosen, seen):
        model(x)
    if not seen:
        raise ConfigError(
            "no activation function and no spiking layer was met; name the layers to look at in layers"
        )
    return {name: torch.cat(found) for name, found in seen.items()}


def fraction_active_units(
    model: nn.Module, x: Shaped[Tensor, "batch ..."], *, layers: Iterable[str] | None = None
) -> float:
    """Share of hidden activations that are above zero for inputs `x`, in [0, 1]; of spikes, of those that happened.

    All units of all layers count alike, at every place of a feature map. `layers` as in `hidden_activity`.

    Ma et al.: Revisiting Plasticity in Visual Reinforcement Learning. ICLR 2024. arXiv:2310.07418

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> fraction_active_units(net, torch.tensor([[1.0, -1.0, 2.0, 0.0]]))
    0.5
    """
    found = hidden_activity(model, x, layers=layers).values()
    return float(sum(int((a > 0).sum()) for a in found) / sum(a.numel() for a in found))


class DormantUnits(NamedTuple):
    """Units that hardly answer to anything."""

    fraction: float  # of all hidden units, in [0, 1]
    units: dict[str, Tensor]  # by layer, bool [units]: true where dormant


def dormant_units(
    model: nn.Module,
    x: Shaped[Tensor, "batch ..."],
    *,
    threshold: float = 0.025,
    layers: Iterable[str] | None = None,
) -> DormantUnits:
    """Units whose mean activity is at most `threshold` of their layer's mean.

    A unit's score is the mean of its absolute activity over `x`, over the mean of these means in its layer; a feature
    map's channel is one unit. Threshold 0 finds the dead ones only; in a layer without any activity all are.

    Sokar, Agarwal, Castro and Evci: The Dormant Neuron Phenomenon in Deep Reinforcement Learning. ICML 2023.
    arXiv:2302.12902

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> dormant_units(net, torch.tensor([[1.0, -1.0, 2.0, 0.01]])).units["1"].tolist()
    [False, True, False, True]
    """
    if not threshold >= 0:
        raise ConfigError(f"dormant_units.threshold: got {threshold}, expected at least 0")
    units: dict[str, Tensor] = {}
    for name, activity in hidden_activity(model, x, layers=layers).items():
        score = _by_unit(activity).abs().mean(0)
        units[name] = score <= threshold * score.mean()
    total = sum(found.numel() for found in units.values())
    return DormantUnits(sum(int(found.sum()) for found in units.values()) / total, units)


def effective_rank(features: Float[Tensor, "samples features"]) -> float:
    """Exponential of the entropy of the normalised singular values of `[samples, features]`, from 1 to its rank.

    0 for features that are all zero. Roy and Vetterli: The effective rank. EUSIPCO 2007.

    >>> effective_rank(torch.eye(3)), effective_rank(torch.ones(3, 3))
    (3.0, 1.0)
    """
    values = _singular_values(features)
    if not values.any():
        return 0.0
    share = values / values.sum()
    return round(float(torch.exp(torch.special.entr(share).sum())), 9)


def stable_rank(features: Float[Tensor, "samples features"]) -> float:
    """Squared Frobenius norm over squared spectral norm of `[samples, features]`, from 1 to its rank.

    0 for features that are all zero. Rudelson and Vershynin: Sampling from large matrices. JACM 2007.

    >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0, 0.0])))
    1.25
    """
    values = _singular_values(features)
    return float((values / values[0]).square().sum()) if values.any() else 0.0


def weight_norm(model: nn.Module) -> float:
    """Euclidean norm of all weights of a model together; biases and gains, which are vectors, do not count.

    >>> net = nn.Linear(2, 2)
    >>> _ = nn.init.constant_(net.weight, 0.5)
    >>> weight_norm(net)
    1.0
    """
    squares = [p.detach().double().square().sum() for p in model.parameters() if p.dim() > 1]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


@dataclass(frozen=True)
class PlasticityProbe:
    """Every probe of one model on the same inputs."""

    active: float  # share of hidden activations above zero
    dormant: float  # share of dormant units
    effective_rank: float  # of the last hidden layer's activity
    stable_rank: float
    weight_norm: float


def probe_plasticity(
    model: nn.Module,
    x: Shaped[Tensor, "batch ..."],
    *,
    threshold: float = 0.025,
    layers: Iterable[str] | None = None,
) -> PlasticityProbe:
    """Every probe of a model on inputs `x`, see their functions; ranks are those of the last hidden layer.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> probe_plasticity(net, torch.rand(16, 4)).dormant
    0.0
    """
    chosen = None if layers is None else tuple(layers)
    activity = hidden_activity(model, x, layers=chosen)
    features = list(activity.values())[-1].flatten(1)
    return PlasticityProbe(
        fraction_active_units(model, x, layers=chosen),
        dormant_units(model, x, threshold=threshold, layers=chosen).fraction,
        effective_rank(features),
        stable_rank(features),
        weight_norm(model),
    )


def _by_unit(activity: Tensor) -> Tensor:
    """`[samples, units]`; places of a feature map are samples of its channel."""
    return activity if activity.dim() == 2 else activity.flatten(2).mT.reshape(-1, activity.shape[1])


def _singular_values(features: Tensor) -> Tensor:
    if features.dim() != 2 or not features.numel():
        raise ShapeError(f"features are {list(features.shape)}, expected [samples, features]; flatten them")
    values: Tensor = torch.linalg.svdvals(features.detach().double())
    return values


class _Activations(TorchDispatchMode):
    """Keeps the output of every activation function, by the module that is running."""

    def __init__(self, running: list[str], spiking: set[str], seen: dict[str, list[Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running, self.spiking, self.seen = running, spiking, seen
        self.calls: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if self.spiking.intersection(self.running):  # a cell may reckon with such functions inside
            return output
        if name in _ACTIVATIONS and isinstance(output, Tensor) and output.dim() > 1:
            where = self.running[-1] if self.running else ""
            # a module that calls several functions, or the same one again
            call = self.calls[where] = self.calls.get(where, 0) + 1
            label = ".".join(filter(None, (where, name.rstrip("_")))) if call > 1 or not where else where
            while label in self.seen:
                label += "'"
            self.seen[label] = [output.clone()]
        return output


@contextmanager
def _listening(
    modules: dict[str, nn.Module], chosen: set[str] | None, seen: dict[str, list[Tensor]]
) -> Iterator[None]:
    running: list[str] = []
    handles: list[Any] = []

    def keep(name: str, timed: bool) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            seen.setdefault(name, []).append(y.flatten(0, 1) if timed else y.clone())

        return hook

    def enter(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, args: running.append(name)

    def leave(_: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    timed = {name for name, module in modules.items() if isinstance(module, Stateful)}
    spiking = {name for name in timed if hasattr(modules[name], "threshold")}
    for name, module in modules.items():
        if chosen is None:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave, always_call=True))
        if name in (spiking if chosen is None else chosen):
            handles.append(module.register_forward_hook(keep(name, name in timed)))
    try:
        with _Activations(running, spiking, seen) if chosen is None else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()
