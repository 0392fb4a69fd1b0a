"""A cell with an input resistance and a resting potential of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuropil.errors import ConfigError
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input, describe
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float


class DrivenCell(Stateful):
    """A cell that is given `gain * x + bias`, its membrane measured from `rest`.

    The cells of this library take their input as it is and rest at zero. Neurons of other libraries have an
    input resistance, a leak potential and a reset potential; this puts them around a cell. The state is the
    cell's own, so its membrane is counted from `rest`; where the cell gives out its membrane, `rest` is added.

    Args:
        cell: Any stateful module of one input.
        gain: Factor on the input, a number or a tensor of the features of a sample.
        bias: What is added to it at every step, in the unit of the membrane.
        rest: Potential at which the cell's membrane is zero.

    Raises ConfigError for numbers that are not finite, and what the cell raises.

    >>> import torch
    >>> from neuropil.nn import LIF
    >>> cell = DrivenCell(LIF(0.9), gain=0.5)
    >>> torch.equal(cell(torch.ones(9, 1, 1))[0], LIF(0.9)(0.5 * torch.ones(9, 1, 1))[0])
    True
    """

    gain: Tensor
    bias: Tensor
    rest: Tensor

    def __init__(
        self,
        cell: Stateful,
        *,
        gain: float | Tensor = 1.0,
        bias: float | Tensor = 0.0,
        rest: float | Tensor = 0.0,
    ) -> None:
        super().__init__()
        self.cell = cell
        for name, value in (("gain", gain), ("bias", bias), ("rest", rest)):
            tensor = torch.as_tensor(value).detach().clone()
            if not bool(tensor.isfinite().all()):
                raise ConfigError(f"DrivenCell.{name}: got {value}, expected finite numbers")
            floats = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_buffer(name, floats)

    def initial_state(self, x: Tensor) -> Any:
        """The cell's state at rest."""
        return self.cell.initial_state(x)

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: Any = None
    ) -> tuple[Float[Tensor, "time batch ..."], Any]:
        """The cell's output at every step, and its state after the last."""
        check_input(self, x)
        check_finite(x, "DrivenCell input")
        y, state = self.cell(self.gain * x + self.bias, state)
        return (y if hasattr(self.cell, "threshold") else y + self.rest), state

    def extra_repr(self) -> str:
        """Gain, bias and rest, for `repr`."""
        return ", ".join(describe(name, getattr(self, name)) for name in ("gain", "bias", "rest"))
