"""A memory that is read by content and written where it was used least.

Graves, Wayne, Danihelka: Neural Turing Machines. 2014. arXiv:1410.5401
Santoro, Bartunov, Botvinick, Wierstra, Lillicrap: Meta-Learning with Memory-Augmented Neural Networks. ICML 2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float

_EMPTY = 0.1  # length below which a slot or a query counts as empty and matches nothing


class ContentMemoryState(NamedTuple):
    """What a memory holds."""

    memory: Tensor  # [batch, slots, width], keys first, then values
    usage: Tensor  # [batch, slots], recent reading and writing of each slot
    read: Tensor  # [batch, slots], where it was read last
    question: Tensor  # [batch, key], what it was asked last


def content_weights(keys: Tensor, question: Tensor, strength: Tensor) -> Tensor:
    """Attention over slots by cosine similarity, `softmax(strength * cosine)`.

    Shapes: keys `[batch, slots, key]`, question `[batch, key]`, strength `[batch]`, result `[batch, slots]`. Keys much
    shorter than 0.1 match nothing, so that an empty memory has no direction and no exploding gradient.

    >>> keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> content_weights(keys, torch.tensor([[0.0, 2.0]]), torch.tensor([50.0])).round()
    tensor([[0., 1.]])
    """
    cosine = torch.einsum("bsk,bk->bs", unit(keys), unit(question))
    return torch.softmax(strength[:, None] * cosine, dim=-1)


def unit(x: Tensor) -> Tensor:
    """Vectors of length one along the last axis; those much shorter than 0.1 stay short."""
    return x / (x.square().sum(-1, keepdim=True) + _EMPTY**2).sqrt()


class ContentAddressableMemory(Stateful):
    """Memory of `slots` rows that a controller's output `[time, batch, inputs]` writes and reads.

    A row is a key and a value. At each step it is written first: what the input has to say is stored under the question
    asked one step before, so that an answer that arrives a step late finds its question. Then the new question is
    asked: values are read where keys resemble it. Linear maps of the input give question and its strength, the value,
    what to erase, and a gate that puts the writing between the slots read last and the one used least,
    `M <- M * (1 - w erase) + w add`.

    Args:
        inputs: features of the controlling input.
        slots: rows of the memory.
        key: features of a key.
        value: features of a value.
        decay: share of a slot's usage that is left after a step, in [0, 1].

    Returns:
        The values that were read, `[time, batch, value]`, and the state. All of it is differentiable but the choice of
        the least used slot.

    Raises:
        ShapeError: the input has another number of features.
        StateError: the state is of another batch or size.

    >>> memory = ContentAddressableMemory(inputs=12, slots=8, key=6, value=4)
    >>> read, state = memory(torch.randn(5, 3, 12))
    >>> read.shape, state.memory.shape
    (torch.Size([5, 3, 4]), torch.Size([3, 8, 10]))
    """

    def __init__(
        self, inputs: int, slots: int = 32, *, key: int = 16, value: int = 16, decay: float = 0.95
    ) -> None:
        super().__init__()
        for name, number in (("inputs", inputs), ("slots", slots), ("key", key), ("value", value)):
            if number < 1:
                raise ConfigError(f"ContentAddressableMemory.{name}: got {number}, expected at least 1")
        if not 0 <= decay <= 1:
            raise ConfigError(f"ContentAddressableMemory.decay: got {decay}, expected a share in [0, 1]")
        self.inputs, self.slots, self.key, self.value, self.decay = inputs, slots, key, value, decay
        self.control = nn.Linear(inputs, key + value + (key + value) + 2)
        with torch.no_grad():
            self.control.bias[-1] = -2.0  # to begin with, write where little was used
            self.control.bias[key + value : -2] = 2.0  # and replace what was there

    def initial_state(self, x: Tensor) -> ContentMemoryState:
        """An empty memory."""
        shape, slots = (x.shape[1],), (x.shape[1], self.slots)
        return ContentMemoryState(
            x.new_zeros(*slots, self.key + self.value),
            x.new_zeros(slots),
            x.new_zeros(slots),
            x.new_zeros(*shape, self.key),
        )

    def check_state(self, state: object, x: Tensor) -> None:
        """Raise StateError in one line when `state` does not fit."""
        if not isinstance(state, ContentMemoryState):
            raise StateError(
                f"ContentAddressableMemory: state is a {type(state).__name__}, expected a call's state or None"
            )
        for name, value, fit in zip(state._fields, state, self.initial_state(x), strict=True):
            if value.shape != fit.shape:
                raise StateError(
                    f"ContentAddressableMemory: state.{name} has shape {list(value.shape)}, expected "
                    f"{list(fit.shape)}; pass state=None to start empty"
                )

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: ContentMemoryState | None = None
    ) -> tuple[Float[Tensor, "time batch value"], ContentMemoryState]:
        """What is read at each step, and the state after the last one."""
        if x.dim() != 3 or x.shape[-1] != self.inputs:
            raise ShapeError(
                f"ContentAddressableMemory: x has shape {list(x.shape)}, expected [time, batch, {self.inputs}]"
            )
        check_finite(x, "ContentAddressableMemory")
        if state is None:
            state = self.initial_state(x)
        else:
            self.check_state(state, x)
        row = self.key + self.value
        question, value, erase, strength, gate = self.control(x).split(
            (self.key, self.value, row, 1, 1), dim=-1
        )
        question, value, erase = unit(question), torch.tanh(value), torch.sigmoid(erase)
        strength, gate = 5 + nn.functional.softplus(strength[..., 0]), torch.sigmoid(gate)
        memory, usage, read, asked = state
        found = []
        for t in range(x.shape[0]):
            least = nn.functional.one_hot(usage.detach().argmin(-1), self.slots).to(x.dtype)
            write = gate[t] * read + (1 - gate[t]) * least
            add = torch.cat([asked, value[t]], dim=-1)
            memory = memory * (1 - write[..., None] * erase[t, :, None]) + write[..., None] * add[:, None]
            read = content_weights(memory[..., : self.key], question[t], strength[t])
            usage = self.decay * usage + read + write
            found.append(torch.einsum("bs,bsv->bv", read, memory[..., self.key :]))
            asked = question[t]
        return torch.stack(found), ContentMemoryState(memory, usage, read, asked)
