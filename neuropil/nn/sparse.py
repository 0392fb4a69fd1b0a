"""A linear layer that holds only the weights a mask keeps, and costs what it holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.kernels.sparse import (
    SparsePattern,
    dense_weight,
    earlier_entries,
    entries,
    sparse_linear,
    sparse_pattern,
    sparse_values,
)
from neuropil.kernels.sparse_blocks import BlockPattern

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class SparseLinear(nn.Module):
    """`y = W x + b` with a `W [out_features, in_features]` that is zero outside a fixed mask.

    `values`, the parameter, holds one number for each weight that is kept, in the order of `entries()`. The mask is
    given, or `density * in_features * out_features` places are drawn from `generator`. Values are drawn as
    `nn.Linear` would for the mean number of inputs that a unit keeps.

    A training step costs what the mask keeps: with 2048 inputs and outputs, 64 samples and a tenth of the weights, a
    fifth of what `nn.Linear` and a mask take. Where the mask keeps or prunes whole blocks of 32 by 32 or 16 by 16
    weights, counted from the first, it costs two thirds of that (an eighth in all); the layer finds out
    by itself, and multiplies densely where that is faster. A state that an earlier version saved is put into today's
    order of values when it is loaded; what an optimizer held for each value is not. Raises ConfigError for both or
    neither of `mask` and `density`, or a density outside 0 to 1, and ShapeError for a mask of another shape.

    >>> layer = SparseLinear(100, 10, density=0.05, generator=torch.Generator().manual_seed(0))
    >>> layer.values.shape, layer(torch.zeros(3, 100)).shape
    (torch.Size([50]), torch.Size([3, 10]))
    """

    pointers: Tensor
    lines: Tensor  # where there are no blocks
    columns: Tensor
    pointers_t: Tensor
    lines_t: Tensor
    columns_t: Tensor
    order: Tensor
    starts: Tensor  # where there are blocks

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        mask: Bool[Tensor, "out_features in_features"] | None = None,
        density: float | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        if (mask is None) == (density is None):
            raise ConfigError("SparseLinear: expected exactly one of mask and density")
        if mask is None:
            mask = _draw(out_features, in_features, density or 0.0, generator)
        if mask.shape != (out_features, in_features):
            raise ShapeError(
                f"SparseLinear: mask has shape {list(mask.shape)}, expected [{out_features}, {in_features}]"
            )
        pattern = sparse_pattern(mask.to(device))
        for name, index in pattern._asdict().items():
            if isinstance(index, Tensor):
                self.register_buffer(name, index)
        self._kind, self._sizes = type(pattern), [size for size in pattern if not isinstance(size, Tensor)]
        options = {"device": device, "dtype": dtype}
        self.values = nn.Parameter(torch.empty((pattern.kept,), **options))  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.empty(out_features, **options)) if bias else None  # type: ignore[arg-type]
        bound = 1 / math.sqrt(max(1.0, len(self.values) / max(1, out_features)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @classmethod
    def from_linear(cls, linear: nn.Linear, mask: Bool[Tensor, "out_features in_features"]) -> SparseLinear:
        """The sparse layer that computes what `linear` does with its weight multiplied by `mask`.

        >>> linear = nn.Linear(2, 1)
        >>> sparse = SparseLinear.from_linear(linear, torch.tensor([[True, False]]))
        >>> torch.equal(sparse.to_dense(), linear.weight * torch.tensor([[1.0, 0.0]]))
        True
        """
        weight, bias = linear.weight.detach(), linear.bias
        layer = cls(
            linear.in_features,
            linear.out_features,
            bias is not None,
            mask=mask,
            generator=torch.Generator(weight.device),  # torch's own state stays as it is
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            layer.values.copy_(sparse_values(weight, layer.pattern))
            if layer.bias is not None:
                layer.bias.copy_(bias)
        return layer

    @property
    def pattern(self) -> SparsePattern | BlockPattern:
        """Which weights are kept."""
        names = self._kind._fields[: -len(self._sizes)]
        return self._kind(*(getattr(self, name) for name in names), *self._sizes)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.update(self._in_todays_order(state_dict, prefix))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _in_todays_order(self, state_dict: dict[str, Any], prefix: str) -> dict[str, Tensor]:
        """What has to change in a state whose values have the order they had before chunks."""
        # A pattern says of what kind it is: of blocks, of entries in chunks, or of entries as they were before.
        if any(f"{prefix}{name}" in state_dict for name in ("starts", "lines")):
            return {}
        names = [f"{prefix}{name}" for name in ("pointers", "columns", "values")]
        if any(name not in state_dict for name in names):
            return {}
        pointers, columns, values = (state_dict[name] for name in names)
        lines = len(pointers) - 1
        if lines % max(1, self.out_features) or (columns >= self.in_features).any():
            return {}  # of another layer: torch says so
        where = earlier_entries(pointers, columns, self.out_features)
        dense = values.new_zeros(self.out_features, self.in_features).index_put(where, values)
        mask = torch.zeros_like(dense, dtype=torch.bool).index_put(
            where, torch.tensor(True, device=dense.device)
        )
        pattern = sparse_pattern(mask)
        tensors = {name: index for name, index in pattern._asdict().items() if isinstance(index, Tensor)}
        tensors["values"] = dense[entries(pattern)]
        return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}

    def entries(self) -> tuple[Tensor, Tensor]:
        """Output and input unit of every value."""
        return entries(self.pattern)

    def to_dense(self) -> Float[Tensor, "out_features in_features"]:
        """The whole weight, differentiable in `values`."""
        return dense_weight(self.values, self.pattern)

    def forward(self, x: Float[Tensor, "... in_features"]) -> Float[Tensor, "... out_features"]:
        """`W x + b`."""
        y = sparse_linear(x, self.values, self.pattern)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Sizes and density, as `print` shows them."""
        density = len(self.values) / max(1, self.in_features * self.out_features)
        return f"in_features={self.in_features}, out_features={self.out_features}, density={density:.3g}"


def _draw(rows: int, columns: int, density: float, generator: torch.Generator | None) -> Tensor:
    """A mask with exactly the share `density` of places, drawn without preference."""
    if not 0 <= density <= 1:
        raise ConfigError(f"SparseLinear: density is {density}, expected 0 to 1")
    device = generator.device if generator is not None else "cpu"
    mask = torch.zeros(rows * columns, dtype=torch.bool, device=device)
    mask[torch.randperm(len(mask), generator=generator, device=device)[: round(density * len(mask))]] = True
    return mask.view(rows, columns)
