"""Key space detection: the queries of a skill are known by their keys in one feed-forward layer, and not answered.

Li, Sun, Weng: Effective Skill Unlearning through Intervention and Abstention. NAACL 2025. arXiv:2503.21730
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.sharing import shared_copy
from neuropil.nn.sites import activation_sites, attach, head_name, known_site, read_sites, widths

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from numpy.typing import NDArray

Model = TypeVar("Model", bound=nn.Module)


class KeySpaceDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """A box around the keys of a skill: mean and standard deviation of each dimension, and how far any key goes.

    `reach_` is the smallest `k` for which all fitted keys lie in `|x - mean| <= k std`, in every dimension. A key is
    of the skill when it lies within `scale` times that box. One estimator of scikit-learn's outlier kind: `predict`
    says 1 for the skill and -1 for all else. A dimension that never varied must be met exactly.

    The worst probe sets the box: leave out probes that are no example of the skill.

    Args:
        scale: how much wider than the fitted keys the box is, above 0; published: 1.4 to 2.

    Attributes:
        mean_, std_: of each dimension.
        reach_: half the box's width in standard deviations.
        offset_: `-scale * reach_`.

    Raises:
        ConfigError: a scale that is not above 0.

    >>> keys = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    >>> detector = KeySpaceDetector(scale=1.2).fit(keys)
    >>> bool(detector.contains(keys).all()), detector.contains(keys[:2] + 5).tolist()
    (True, [False, False])
    """

    def __init__(self, scale: float = 1.4) -> None:
        self.scale = scale

    def fit(self, X: Any, y: Any = None) -> KeySpaceDetector:
        """Take the measure of keys `[queries, features]`."""
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"KeySpaceDetector: scale is {self.scale}, expected a number above 0")
        keys = validate_data(self, _array(X), dtype=np.float64)
        self.mean_ = keys.mean(0)
        self.std_ = keys.std(0)
        self.std_[np.ptp(keys, 0) == 0] = 0.0
        self.mean_[self.std_ == 0] = keys[0, self.std_ == 0]
        self.reach_ = float(self._farthest(keys).max())
        self.offset_ = -self.scale * self.reach_
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus the largest deviation of each key from the mean, over dimensions, in standard deviations."""
        check_is_fitted(self)
        return -self._farthest(validate_data(self, _array(X), dtype=np.float64, reset=False))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """How far inside the box each key lies; negative outside."""
        inside: NDArray[np.float64] = self.score_samples(X) - self.offset_
        return inside

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 inside the box, -1 outside."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def contains(self, keys: Float[Tensor, "queries features"]) -> Tensor:
        """Whether each key lies in the box, `[queries]` of bool."""
        return torch.from_numpy(self.predict(keys) > 0)

    def _farthest(self, keys: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = np.abs(keys - self.mean_)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(apart == 0, 0.0, apart / self.std_)
        # Infinity where a dimension that never varied differs: as a finite number, for whoever ranks scores.
        farthest: NDArray[np.float64] = np.minimum(scaled.max(1), 1e30)
        return farthest


def _array(keys: Any) -> Any:
    return keys.detach().cpu().numpy() if isinstance(keys, Tensor) else keys


def prompt_keys(
    model: nn.Module, tokens: Int64[Tensor, "query token"], *, layer: int = -1, position: int = -1
) -> Float[Tensor, "query features"]:
    """The keys of queries: what enters a feed-forward layer's down-projection at one token, by default the last.

    `layer` counts the blocks, from the end when negative. Raises ConfigError for a layer or position that is not there.

    >>> from neuropil.nn import Decoder
    >>> prompt_keys(Decoder(width=16, layers=2, heads=2, hidden=24), torch.zeros(3, 5, dtype=torch.long)).shape
    torch.Size([3, 24])
    """
    if not -tokens.shape[1] <= position < tokens.shape[1]:
        raise ConfigError(f"prompt_keys: position is {position}, expected one of {tokens.shape[1]} tokens")
    site = _key_site(model, layer)
    return read_sites(model, tokens, sites=[site])[site][:, position]


class KeySpaceGate(nn.Module):
    """Overwrites the keys of queries that lie in a detector's box, from the prompt's last token on.

    `[batch, token, features]` in and out. Whether a query is answered is decided once, at token `prompt` (counted from
    1), or at the last token of each call where `prompt` is None; a call that ends before that token passes.

    >>> keys = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> gate = KeySpaceGate(KeySpaceDetector().fit(keys), torch.full((4,), 7.0))
    >>> gate(torch.stack([keys[0], keys[0] + 9])[:, None])[0]
    tensor([[7., 7., 7., 7.]])
    """

    mean: Tensor
    half_width: Tensor
    steer: Tensor

    def __init__(
        self, detector: KeySpaceDetector, steer: Float[Tensor, " features"], prompt: int | None = None
    ) -> None:
        super().__init__()
        check_is_fitted(detector)
        if steer.shape != detector.mean_.shape:
            raise ShapeError(
                f"KeySpaceGate: steer is {list(steer.shape)}, expected {list(detector.mean_.shape)}"
            )
        if prompt is not None and prompt < 1:
            raise ConfigError(
                f"KeySpaceGate: prompt is {prompt}, expected the number of its tokens, 1 or more"
            )
        self.prompt = prompt
        self.register_buffer("mean", torch.from_numpy(detector.mean_).to(steer))
        width = torch.from_numpy(-detector.offset_ * detector.std_)
        self.register_buffer("half_width", width.to(steer))
        self.register_buffer("steer", steer.detach().clone())

    def forward(self, keys: Float[Tensor, "batch token features"]) -> Float[Tensor, "batch token features"]:
        """Overwrite what is of the skill."""
        tokens = keys.shape[-2]
        last = tokens if self.prompt is None else self.prompt
        if last > tokens:
            return keys
        inside = ((keys[..., last - 1, :] - self.mean).abs() <= self.half_width).all(-1)
        after = torch.arange(tokens, device=keys.device) >= last - 1
        return torch.where((inside[..., None] & after)[..., None], self.steer, keys)

    def extra_repr(self) -> str:
        """What it was made with."""
        return f"prompt={self.prompt}"


def abstain(
    model: Model,
    detector: KeySpaceDetector,
    steer: Float[Tensor, " features"],
    *,
    layer: int = -1,
    prompt: int | None = None,
) -> Model:
    """Key space detection: the model that does not answer queries whose key lies in the detector's box.

    Their keys are overwritten from the prompt's last token on. Nothing is trained, and every parameter is shared.

    Args:
        model: a causal model; it stays as it is.
        detector: fitted on `prompt_keys(model, queries of the skill, layer=layer)`.
        steer: the key that is put in the place, as of `steering_key`.
        layer: the block, from the end when negative.
        prompt: tokens of a prompt, where all have as many: decided once a query. None decides at the last token of each
            call: right for one call a query, or where generated tokens are handed over one by one with a cache.

    Raises:
        ConfigError: a layer that is not there.
        ShapeError: keys of another width.

    >>> from neuropil.nn import Decoder
    >>> model, queries = Decoder(width=16, layers=1, heads=2), torch.randint(48, 58, (30, 6))
    >>> detector = KeySpaceDetector().fit(prompt_keys(model, queries))
    >>> edited = abstain(model, detector, steering_key(model, ord("?")))
    >>> (edited(queries)[:, -1].argmax(-1) == ord("?")).all(), edited.head.weight is model.head.weight
    (tensor(True), True)
    """
    site = _key_site(model, layer)
    hidden, _ = widths(model.get_submodule(known_site(model, site).module))
    if len(detector.mean_) != hidden:
        raise ShapeError(
            f"abstain: the detector knows keys of {len(detector.mean_)}, those at {site!r} have {hidden}"
        )
    edited = shared_copy(model)
    weight = next(model.parameters())
    attach(edited, site, KeySpaceGate(detector, steer.to(weight), prompt), "gate")
    return edited


@torch.no_grad()
def steering_key(
    model: nn.Module, token: int, *, layer: int = -1, strength: float = 1000.0
) -> Float[Tensor, " features"]:
    """A key that makes the model say one token, such as the end of the text, whatever was before it.

    The shortest one whose feed-forward layer adds to the stream a vector of length `strength`, large beside the stream,
    in the direction in which the head answers that token, the last norm's gains undone. Sure in the last block alone,
    where only a norm comes after, and for tokens that some direction makes the likeliest.

    Raises ConfigError for a token or layer that is not there, or a strength that is not above 0.

    >>> from neuropil.nn import Decoder
    >>> steering_key(Decoder(width=16, layers=1, heads=2, hidden=24), token=63).shape
    torch.Size([24])
    """
    head: Tensor = model.get_submodule(head_name(model)).weight  # type: ignore[assignment]
    if not 0 <= token < len(head):
        raise ConfigError(f"steering_key: token is {token}, expected 0 to {len(head) - 1}")
    if not (math.isfinite(strength) and strength > 0):
        raise ConfigError(f"steering_key: strength is {strength}, expected a number above 0")
    down = model.get_submodule(known_site(model, _key_site(model, layer)).module)
    held: Tensor = down.weight  # type: ignore[assignment]
    # Conv1D keeps its weight the other way round.
    weight = (held.mT if type(down).__name__ == "Conv1D" else held).double()
    wanted = _direction(head.double(), token) / _gains(model, head.shape[1]).to(weight)
    wanted = strength * wanted / wanted.norm().clamp_min(1e-30)
    if isinstance(down.bias, Tensor):
        wanted = wanted - down.bias
    key: Tensor = torch.linalg.pinv(weight) @ wanted
    return key.to(head.dtype)


def _direction(head: Tensor, token: int, steps: int = 60) -> Tensor:
    """Direction of the final hidden state, a unit vector, in which the head's answer is the token: ascent on its odds.

    Begins at the token's row less the mean row, which another, longer row may surpass.
    """
    found = head[token] - head.mean(0)
    sharpness = 30 / head.norm(dim=1).max().clamp_min(1e-30)
    for step in range(steps):
        found = found / found.norm().clamp_min(1e-30)
        odds = (sharpness * (head @ found)).softmax(0)
        uphill = head[token] - odds @ head
        found = found + uphill / uphill.norm().clamp_min(1e-30) / (step + 2)
    unit: Tensor = found / found.norm().clamp_min(1e-30)
    return unit


def _gains(model: nn.Module, width: int) -> Tensor:
    """Gains of the last norm outside the blocks, tiny ones bounded; ones where there is none."""
    sites = activation_sites(model)
    blocks = tuple(f"{site.module}." for name, site in sites.items() if name.startswith("residual."))
    gains = torch.ones(width)
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.shape == (width,) and not name.startswith(blocks):
            gains = weight.double()
    least = 0.05 * gains.abs().mean().clamp_min(1e-30)
    return torch.where(gains < 0, -1.0, 1.0) * gains.abs().clamp_min(least)


def _key_site(model: nn.Module, layer: int) -> str:
    blocks = sum(name.startswith("key.") for name in activation_sites(model))
    if not -blocks <= layer < blocks:
        raise ConfigError(f"layer is {layer}, expected one of {blocks} blocks: {-blocks} to {blocks - 1}")
    return f"key.{layer % blocks}"
