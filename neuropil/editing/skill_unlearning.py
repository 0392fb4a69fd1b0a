"""Skill unlearning without training: neurons that a skill drives are led astray, or its queries are not answered.

Li, Sun, Weng: Effective Skill Unlearning through Intervention and Abstention. NAACL 2025. arXiv:2503.21730
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, DataError, ShapeError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.sharing import shared_copy
from neuropil.nn.sites import activation_sites, attach, known_site, read_sites, widths
from neuropil.plotting import canvas

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Bool, Float, Int64

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class SiteStatistics:
    """Mean and standard deviation (of the population) of each neuron at one site, over `count` tokens."""

    mean: Float[Tensor, " neurons"]
    std: Float[Tensor, " neurons"]
    count: int

    def plot(self) -> Any:
        """Standard deviation of every neuron against its mean."""
        figure, axes = canvas()
        axes[0].plot(self.mean.cpu().numpy(), self.std.cpu().numpy(), ".", alpha=0.6)
        axes[0].set(xlabel="mean", ylabel="standard deviation", title=f"{self.count} tokens")
        return figure


class ActivationProbe:
    """Running mean and standard deviation of every neuron at some sites of a language model.

    Each `update` calls the model once and adds the tokens that it saw; hooks are there only meanwhile. Sums are merged
    in double precision, so that the order and the size of the batches do not matter.

    Args:
        model: a causal model whose sites `neuropil.nn.activation_sites` finds.
        sites: names of sites; default: `pre_activations(model)`.

    Raises:
        UnknownNameError: a site that the model does not have.

    >>> from neuropil.nn import Decoder
    >>> probe = ActivationProbe(Decoder(width=16, layers=2, heads=2, hidden=24))
    >>> probe.update(torch.zeros(3, 5, dtype=torch.long))
    >>> probe.statistics["gate.1"].mean.shape, probe.statistics["gate.1"].count
    (torch.Size([24]), 15)
    """

    def __init__(self, model: nn.Module, sites: Iterable[str] | None = None) -> None:
        self.model = model
        self.sites = pre_activations(model) if sites is None else tuple(sites)
        for site in self.sites:
            known_site(model, site)
        self._count = 0
        self._mean: dict[str, Tensor] = {}
        self._square: dict[str, Tensor] = {}  # sum of squared deviations from the mean

    def update(
        self, tokens: Int64[Tensor, "batch token"], where: Bool[Tensor, "batch token"] | None = None
    ) -> None:
        """Add the activity of a batch of texts, of all tokens or of those that `where` says.

        Raises ShapeError when `where` is not as large as the tokens, NonFiniteError for NaN or infinity.
        """
        if where is not None and where.shape != tokens.shape:
            raise ShapeError(f"ActivationProbe: where is {list(where.shape)}, expected {list(tokens.shape)}")
        added = 0
        for name, x in read_sites(self.model, tokens, sites=self.sites).items():
            seen = (x.flatten(0, -2) if where is None else x[where]).double()
            check_finite(seen, f"ActivationProbe, {name}")
            added = len(seen)
            if added:
                self._merge(name, seen)
        self._count += added

    def _merge(self, name: str, seen: Tensor) -> None:
        """Chan, Golub and LeVeque's update of mean and sum of squares."""
        mean, n = seen.mean(0), len(seen)
        square = (seen - mean).square().sum(0)
        if self._count:
            total, apart = self._count + n, mean - self._mean[name]
            square = self._square[name] + square + apart.square() * (self._count * n / total)
            mean = self._mean[name] + apart * (n / total)
        self._mean[name], self._square[name] = mean, square

    @property
    def statistics(self) -> dict[str, SiteStatistics]:
        """What was seen so far, by site. Raises DataError when nothing was."""
        if not self._count:
            raise DataError("ActivationProbe: no token was seen; call update first")
        return {
            name: SiteStatistics(
                self._mean[name].float(), (self._square[name] / self._count).sqrt().float(), self._count
            )
            for name in self.sites
        }


def pre_activations(model: nn.Module) -> tuple[str, ...]:
    """Sites of the feed-forward neurons before their nonlinearity: `gate.i` in gated layers, otherwise `up.i`.

    >>> from neuropil.nn import Decoder
    >>> pre_activations(Decoder(width=16, layers=2, heads=2, activation="relu"))
    ('up.0', 'up.1')
    """
    sites = activation_sites(model)
    numbers = [name.partition(".")[2] for name in sites if name.startswith("key.")]
    return tuple(f"gate.{i}" if f"gate.{i}" in sites else f"up.{i}" for i in numbers)


def skill_neurons(
    forget: Mapping[str, SiteStatistics], retain: Mapping[str, SiteStatistics], share: float = 0.03
) -> dict[str, Int64[Tensor, " chosen"]]:
    """The neurons whose mean pre-activation a skill raises most: the first `share` of all sites' neurons together.

    Returns indices by site, at least one neuron in all; sites without any are left out.

    Raises ConfigError for a share outside (0, 1], DataError when the two were not taken at the same sites.

    >>> forget = {"up.0": SiteStatistics(torch.tensor([0.0, 3.0, 1.0, 1.0]), torch.ones(4), 9)}
    >>> retain = {"up.0": SiteStatistics(torch.zeros(4), torch.ones(4), 9)}
    >>> skill_neurons(forget, retain, share=0.25)
    {'up.0': tensor([1])}
    """
    if not 0 < share <= 1:
        raise ConfigError(f"skill_neurons: share is {share}, expected more than 0 and at most 1")
    if forget.keys() != retain.keys() or not forget:
        raise DataError(
            f"skill_neurons: statistics of {sorted(forget)} and of {sorted(retain)}, expected the same"
        )
    apart = torch.cat([forget[name].mean - retain[name].mean for name in forget])
    chosen = torch.zeros(len(apart), dtype=torch.bool, device=apart.device)
    chosen[apart.argsort(descending=True, stable=True)[: max(1, round(share * len(apart)))]] = True
    parts = chosen.split([len(found.mean) for found in forget.values()])
    return {name: part.nonzero()[:, 0] for name, part in zip(forget, parts, strict=True) if bool(part.any())}


class NeuronAdjust(nn.Module):
    """Leads neurons astray where they look driven by a skill; `[..., neurons]` in and out.

    With the normal densities `p_f` and `p_r` of a pre-activation `v` under the skill and under the rest, a chosen
    neuron with `p_f >= p_r` is changed with probability `p_f / (p_f + p_r)` to `mu_r - sd_r * (v - mu_f) / sd_f`: what
    the skill's distribution becomes when it is mapped to the other's and mirrored at its mean. All others stay.

    The draw is a hash of the neuron, its value (to a thousandth of the skill's standard deviation) and `seed`: the
    same input gives the same answer, alone or in a batch, and no random state is touched.

    Args:
        neurons: indices of the chosen ones.
        forget: their mean and standard deviation under the skill, over all neurons of the site.
        retain: and under what is to be kept.
        seed: another one draws otherwise.

    Raises:
        ConfigError: no neuron, or one that is not there.
        ShapeError: statistics of different lengths.
        DataError: a chosen neuron that never varies.

    >>> skill, rest = (SiteStatistics(torch.tensor([m, 0.0]), torch.ones(2), 9) for m in (8.0, 0.0))
    >>> NeuronAdjust(torch.tensor([0]), skill, rest)(torch.tensor([[9.0, 9.0], [1.0, 1.0]]))
    tensor([[-1.,  9.],
            [ 1.,  1.]])
    """

    neurons: Tensor
    forget_mean: Tensor
    forget_std: Tensor
    retain_mean: Tensor
    retain_std: Tensor

    def __init__(
        self, neurons: Int64[Tensor, " chosen"], forget: SiteStatistics, retain: SiteStatistics, seed: int = 0
    ) -> None:
        super().__init__()
        size = len(forget.mean)
        if len(retain.mean) != size:
            raise ShapeError(
                f"NeuronAdjust: statistics of {size} and of {len(retain.mean)} neurons, expected the same"
            )
        if not len(neurons) or not 0 <= int(neurons.min()) <= int(neurons.max()) < size:
            raise ConfigError(
                f"NeuronAdjust: neurons are {neurons.tolist()[:6]}, expected some of 0 to {size - 1}"
            )
        self.register_buffer("neurons", neurons.clone())
        for name, found in (("forget", forget), ("retain", retain)):
            if not bool((found.std[neurons] > 0).all()):
                raise DataError(f"NeuronAdjust: a chosen neuron never varies in what was probed as {name}")
            self.register_buffer(f"{name}_mean", found.mean[neurons].clone())
            self.register_buffer(f"{name}_std", found.std[neurons].clone())
        self.seed = seed

    def forward(self, x: Float[Tensor, "*batch neurons"]) -> Float[Tensor, "*batch neurons"]:
        """Change what looks like the skill."""
        value = x[..., self.neurons]
        under_forget = (value - self.forget_mean) / self.forget_std
        under_retain = (value - self.retain_mean) / self.retain_std
        # log p_f - log p_r; its sigmoid is p_f / (p_f + p_r).
        ratio = (under_retain.square() - under_forget.square()) / 2 + (
            self.retain_std / self.forget_std
        ).log()
        chosen = (ratio >= 0) & (_uniform(under_forget, self.neurons, self.seed) < ratio.sigmoid())
        mirrored = self.retain_mean - self.retain_std * under_forget
        return x.index_copy(-1, self.neurons, torch.where(chosen, mirrored, value))

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"neurons={len(self.neurons)}, seed={self.seed}"


def neuron_adjust(
    model: Model,
    forget: Mapping[str, SiteStatistics],
    retain: Mapping[str, SiteStatistics],
    share: float = 0.03,
    *,
    neurons: Mapping[str, Int64[Tensor, " chosen"]] | None = None,
    seed: int = 0,
) -> Model:
    """Neuron Adjust: the model with a `NeuronAdjust` at every site where a skill drives neurons; nothing is trained.

    Args:
        model: a causal model; it stays as it is, and every parameter is shared.
        forget: `ActivationProbe(...).statistics` over texts of the skill.
        retain: the same over texts of what is to be kept.
        share: of the neurons of all sites together that is chosen, above 0; published: 0.005 to 0.03.
        neurons: indices by site, instead of `skill_neurons(forget, retain, share)`.
        seed: of the draws.

    Raises:
        ConfigError: a share outside (0, 1].
        UnknownNameError: a site that the model does not have.
        DataError: a chosen neuron that never varies, or statistics of different sites.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=16, layers=1, heads=2)
    >>> digits, letters = (torch.randint(a, b, (20, 12)) for a, b in ((48, 58), (97, 123)))
    >>> probes = [ActivationProbe(model) for _ in range(2)]
    >>> probes[0].update(digits), probes[1].update(letters)
    (None, None)
    >>> edited = neuron_adjust(model, *(probe.statistics for probe in probes), share=0.1)
    >>> bool((edited(digits) == model(digits)).all()), edited.head.weight is model.head.weight
    (False, True)
    """
    chosen = skill_neurons(forget, retain, share) if neurons is None else neurons
    edited = shared_copy(model)
    weight = next(model.parameters())
    for name, indices in chosen.items():
        if name not in forget or name not in retain:
            raise DataError(f"neuron_adjust: nothing was probed at {name!r}{nearest(name, forget)}")
        part = NeuronAdjust(indices, forget[name], retain[name], seed)
        attach(edited, name, part.to(weight.device, weight.dtype), "adjust")
    return edited


def prune_neurons(model: Model, neurons: Mapping[str, Int64[Tensor, " chosen"]]) -> Model:
    """Selective pruning: the model without some feed-forward neurons, their outgoing weights zero.

    `neurons` are indices by site, as of `skill_neurons`. Raises UnknownNameError for a site that is not there and
    ConfigError for a neuron that is not.

    >>> from neuropil.nn import Decoder
    >>> model = Decoder(width=16, layers=1, heads=2)
    >>> int((prune_neurons(model, {"gate.0": torch.tensor([2, 5])}).blocks[0].feedforward.down.weight == 0).sum())
    32
    """
    edited = shared_copy(model)
    for name, indices in neurons.items():
        known_site(model, name)
        down = edited.get_submodule(known_site(model, f"key.{name.partition('.')[2]}").module)
        hidden, _ = widths(down)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < hidden:
            raise ConfigError(
                f"prune_neurons: {indices.tolist()[:6]} at {name!r}, expected some of 0 to {hidden - 1}"
            )
        old: Tensor = down.weight  # type: ignore[assignment]
        rows = type(down).__name__ == "Conv1D"  # keeps its weight the other way round
        keep = torch.ones(hidden, dtype=old.dtype, device=old.device).index_fill(
            0, indices.to(old.device), 0.0
        )
        down.weight = nn.Parameter(old.detach() * (keep[:, None] if rows else keep), old.requires_grad)
    return edited


def _uniform(value: Tensor, neurons: Tensor, seed: int) -> Tensor:
    """Numbers in [0, 1) that look drawn at random and are the same for the same neuron, value and seed."""
    level = (value.detach().float().clamp(-1e4, 1e4) * 1024).floor().long()
    mixed = (level * 0x2545F49 + neurons * 0x3C6EF37 + seed * 0x1B87359) & 0x7FFFFFFF
    for _ in range(3):  # products stay below 2**59
        mixed = ((mixed ^ (mixed >> 15)) * 0x45D9F3B) & 0x7FFFFFFF
    mixed = mixed ^ (mixed >> 16)
    return (mixed.double() / 2**31).to(value.dtype)
