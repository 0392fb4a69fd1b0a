from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuropil.errors import ConfigError
from neuropil.nn import CosineLinear
from neuropil.nn.presynaptic import synapses


def cosine(learn_scale: bool = False) -> Any:
    return CosineLinear(6, 4, scale=3.0, learn_scale=learn_scale), torch.randn(5, 6)


PARTS = [("module", cosine), ("module", partial(cosine, learn_scale=True))]


def test_outputs_are_scaled_cosines() -> None:
    layer, x = CosineLinear(6, 4, scale=7.0).double(), torch.randn(2, 5, 6).double()
    w, z = layer.weight.detach().numpy(), x.numpy()
    expected = np.einsum("abi,oi->abo", z, w)
    expected *= 7 / (np.linalg.norm(z, axis=-1)[..., None] * np.linalg.norm(w, axis=-1))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected)


def test_lengths_do_not_count_and_silence_answers_nothing() -> None:
    layer, x = CosineLinear(6, 4), torch.randn(3, 6)
    before = layer(x).detach()
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([[0.1], [1.0], [5.0], [20.0]]))
    torch.testing.assert_close(layer(3 * x), before)
    assert not layer(torch.zeros(2, 6)).any() and layer(torch.zeros(2, 6)).isfinite().all()


def test_a_silent_input_sends_back_no_larger_gradients_than_others() -> None:
    layer = CosineLinear(6, 4, scale=2.0)
    x = torch.zeros(3, 6)
    x[1] = torch.rand(6)
    x.requires_grad_()
    layer(x).sum().backward()
    most = float(layer.scale) * 4  # the scale times the answers, each of a weight of length one
    assert x.grad.isfinite().all() and float(x.grad[0].norm()) <= most
    torch.testing.assert_close(x.grad[0], x.grad[2])


def test_learning_never_lengthens_a_weight_by_its_gradient() -> None:
    """The gradient is orthogonal to every weight vector, since its length does not count."""
    layer = CosineLinear(6, 4)
    nn.functional.cross_entropy(layer(torch.randn(8, 6)), torch.arange(8) % 4).backward()
    products = (layer.weight.grad * layer.weight).sum(1)
    assert products.abs().max() < 1e-6 and layer.weight.grad.norm() > 1e-3


def test_masked_classes_are_not_touched() -> None:
    layer = CosineLinear(6, 4)
    logits = layer(torch.randn(8, 6)).masked_fill(torch.tensor([True, True, False, False]), -torch.inf)
    nn.functional.cross_entropy(logits, 2 + torch.arange(8) % 2).backward()
    assert not layer.weight.grad[:2].any() and layer.weight.grad[2:].any()


def test_it_is_no_synapse_that_projections_could_protect() -> None:
    assert list(synapses(nn.Sequential(nn.Linear(3, 6), CosineLinear(6, 4)))) == ["0"]


@pytest.mark.parametrize("bad", [{"scale": 0.0}, {"scale": float("nan")}, {"out_features": 0}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="CosineLinear"):
        CosineLinear(**{"in_features": 3, "out_features": 2, **bad})
