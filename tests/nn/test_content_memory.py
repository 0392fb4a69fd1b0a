from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn.content_memory import ContentAddressableMemory, content_weights


def memory(**settings: Any) -> Any:
    return ContentAddressableMemory(6, 5, key=4, value=3, **settings), torch.randn(7, 4, 6)


PARTS = [("module", memory), ("module", partial(memory, decay=0.5))]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 0.01)


def test_it_is_the_literal_equations_in_numpy() -> None:
    torch.manual_seed(0)
    module, x = memory()
    module, x = module.double(), x.double()
    found, state = module(x)
    weight, bias = (p.detach().numpy() for p in module.control.parameters())
    for b in range(x.shape[1]):
        rows, usage = np.zeros((5, 7)), np.zeros(5)
        read, asked = np.zeros(5), np.zeros(4)
        for t in range(len(x)):
            c = weight @ x[t, b].numpy() + bias
            question, value, erase = unit(c[:4]), np.tanh(c[4:7]), sigmoid(c[7:14])
            strength, gate = 5 + np.log1p(np.exp(c[14])), sigmoid(c[15])
            write = gate * read + (1 - gate) * np.eye(5)[usage.argmin()]
            rows = rows * (1 - np.outer(write, erase)) + np.outer(write, np.r_[asked, value])
            score = strength * unit(rows[:, :4]) @ unit(question)
            read = np.exp(score) / np.exp(score).sum()
            usage = 0.95 * usage + read + write
            np.testing.assert_allclose(found[t, b].detach(), read @ rows[:, 4:], rtol=1e-9, atol=1e-12)
            asked = question
        np.testing.assert_allclose(state.memory[b].detach(), rows, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state.usage[b].detach(), usage, rtol=1e-9)


def test_an_answer_is_found_again_under_its_question() -> None:
    """Questions are the first four inputs, answers the last two and one step late: a hand-set dictionary."""
    module = ContentAddressableMemory(6, 8, key=4, value=2)
    with torch.no_grad():
        module.control.weight.zero_()
        module.control.bias.zero_()
        module.control.weight[:4, :4] = 50 * torch.eye(4)
        module.control.weight[4:6, 4:] = 50 * torch.eye(2)
        module.control.bias[6:12], module.control.bias[12], module.control.bias[13] = 50.0, 40.0, -50.0
    asked = [0, 1, 2, 0, 2, 1]
    answers = {0: (1.0, 1.0), 1: (-1.0, 1.0), 2: (1.0, -1.0)}
    x = torch.zeros(6, 1, 6)
    for t, question in enumerate(asked):
        x[t, 0, question] = 1.0
        if t:
            x[t, 0, 4:] = torch.tensor(answers[asked[t - 1]])
    found, _ = module(x)
    for t in (3, 4, 5):
        torch.testing.assert_close(found[t, 0], torch.tensor(answers[asked[t]]), atol=0.02, rtol=0)


def test_an_empty_memory_answers_nothing_and_has_finite_gradients() -> None:
    keys = torch.zeros(2, 5, 4, requires_grad=True)
    weights = content_weights(keys, torch.randn(2, 4), torch.full((2,), 30.0))
    torch.testing.assert_close(weights, torch.full((2, 5), 0.2))
    weights.square().sum().backward()
    assert bool(keys.grad.isfinite().all())


def test_slots_are_filled_before_any_is_written_twice() -> None:
    module, _ = memory()
    with torch.no_grad():
        module.control.bias[-1] = -50.0  # only where least was used
        module.control.weight[-1] = 0.0
        module.control.weight[-2] = 0.0
        module.control.bias[-2] = 30.0
    _, state = module(torch.randn(5, 4, 6))
    assert bool((state.memory.abs().sum(-1) > 1e-3).all())


OTHER = memory()[0].initial_state(torch.zeros(1, 2, 6))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ContentAddressableMemory(0), ConfigError, "inputs: got 0"),
        (lambda: ContentAddressableMemory(3, value=0), ConfigError, "value: got 0"),
        (lambda: ContentAddressableMemory(3, decay=1.5), ConfigError, "decay: got 1.5"),
        (lambda: memory()[0](torch.zeros(2, 3, 5)), ShapeError, r"\[time, batch, 6\]"),
        (lambda: memory()[0](torch.zeros(2, 3, 6), (1, 2)), StateError, "state is a tuple"),
        (lambda: memory()[0](torch.zeros(2, 3, 6), OTHER), StateError, "state.memory"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
