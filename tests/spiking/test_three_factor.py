"""Three factors against one eligibility per synapse, and against the gradient where they must agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, IncompatibleError, ShapeError
from neuropil.nn import LIF, BatchFirst, RateReadout, Sequential
from neuropil.spiking import ThreeFactor, three_factor_change
from neuropil.training import Backprop, Learner
from tests.spiking.patterns import CHANNELS, CLASSES, spike_batch


def network(hidden: bool = True, reset: str = "subtract") -> BatchFirst:
    torch.manual_seed(torch.initial_seed() % 2**31)
    layers = [nn.Linear(CHANNELS, 24), LIF(decay=0.8, reset=reset)] if hidden else []
    return BatchFirst(Sequential(*layers, nn.Linear(24 if hidden else CHANNELS, CLASSES), RateReadout()))


def broadcast() -> tuple[Learner, Batch]:
    net = network()
    generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
    return ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=1.0), generator=generator), spike_batch()


PARTS = [("learner", broadcast)]


@pytest.mark.parametrize("shape", [(9, 4), (9, 4, 1), (9, 4, 5)])
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_it_equals_the_eligibility_of_every_synapse(shape: tuple[int, ...], decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    pre, post = (torch.randn(9, 4, n, generator=generator, dtype=torch.double) for n in (6, 5))
    modulator = torch.randn(*shape, generator=generator, dtype=torch.double)
    eligibility = torch.zeros(4, 5, 6, dtype=torch.double)
    change = torch.zeros(5, 6, dtype=torch.double)
    for t in range(9):
        eligibility = decay * eligibility + torch.einsum("bo,bi->boi", post[t], pre[t])
        third = modulator[t].reshape(4, -1)
        change += (third.unsqueeze(-1) * eligibility).sum(0)
    torch.testing.assert_close(three_factor_change(pre, post, modulator, decay), change)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_with_the_weights_themselves_as_feedback_it_is_the_gradient(reset: str) -> None:
    """Subtracted resets lose nothing of a trace; neurons that start over do, and there the gradient is another."""
    net = network(reset=reset)
    learner = ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=0.0))
    learner.feedback = {"model.0": net.model[2].weight.detach().clone()}
    batch = spike_batch()
    learner.update(batch)
    ours = [p.grad.clone() for p in net.parameters()]
    Backprop(net, torch.optim.SGD(net.parameters(), lr=0.0)).update(batch)
    theirs = [p.grad for p in net.parameters()]
    torch.testing.assert_close(ours[2:], theirs[2:])
    if reset == "subtract":
        torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-4, atol=1e-6)
    else:
        assert functional.cosine_similarity(ours[0].flatten(), theirs[0].flatten(), dim=0) > 0.7


def test_one_reward_for_all_is_broadcast_to_every_neuron() -> None:
    net = network(hidden=False)
    learner = ThreeFactor(
        net,
        torch.optim.SGD(net.parameters(), lr=0.0),
        modulator=lambda output, batch: torch.ones(len(output)),
    )
    batch = spike_batch()
    learner.update(batch)
    mean = batch.inputs.mean((0, 1))
    torch.testing.assert_close(net.model[0].weight.grad, -mean.expand(CLASSES, -1))


def test_what_does_not_fit_is_told_in_one_line() -> None:
    x = torch.zeros(3, 2, 4)
    with pytest.raises(ConfigError, match="decay"):
        three_factor_change(x, x, x[..., 0], 1.5)
    with pytest.raises(ShapeError, match="same time and batch"):
        three_factor_change(x, x[:2], x[..., 0], 0.5)
    with pytest.raises(ShapeError, match="one or 4"):
        three_factor_change(x, x, x[..., :3], 0.5)
    with pytest.raises(ConfigError, match="has no"):
        ThreeFactor(LIF(), torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0))
    net = Sequential(nn.Linear(4, 2), LIF(decay=torch.tensor([0.5, 0.6])))
    with pytest.raises(IncompatibleError, match="use one decay"):
        ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=1.0)).update(
            Batch(torch.zeros(5, 3, 4), torch.tensor([0, 1, 0]))
        )


class Written(nn.Module):
    """Outputs whose weights another layer writes."""

    def __init__(self):
        super().__init__()
        self.writer = nn.Linear(3, CHANNELS * CLASSES)

    def forward(self, x):
        return x.mean(1) @ self.writer(torch.ones(1, 3)).view(CHANNELS, CLASSES)


def test_a_layer_that_writes_weights_is_named() -> None:
    model = Written()
    learner = ThreeFactor(model, torch.optim.SGD(model.parameters(), lr=1.0))
    with pytest.raises(IncompatibleError, match=r"layer 'writer' is given \[1, 3\] for a batch of"):
        learner.update(spike_batch())
