"""A training step of a spiking network in peer libraries: linear, neurons, linear, mean over time.

The linear layers see time folded into the batch, one product each, which is the fastest form everywhere.
"""

import lif
import torch
from torch.nn import functional


def _step(inputs, layer, static, once=False):
    x, targets = torch.from_numpy(inputs["x"]), torch.from_numpy(inputs["targets"])
    first, second = (torch.nn.Linear(*inputs[name].shape[::-1], bias=False) for name in ("first", "second"))
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(inputs["first"]))
        second.weight.copy_(torch.from_numpy(inputs["second"]))
    steps = int(inputs["steps"])
    optimizer = torch.optim.SGD([first.weight, second.weight], lr=0.01, momentum=0.9, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        if once:
            current = first(x).expand(steps, *x.shape[:1], -1)
        else:
            sequence = x.unsqueeze(0).repeat(steps, 1, 1) if static else x
            current = first(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
        hidden = layer(current)
        answer = second(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]).mean(0)
        loss = functional.cross_entropy(answer, targets)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "gradient": first.weight.grad}

    return run


def snntorch(inputs):
    return _step(inputs, lif.snntorch_layer(), False)


def spikingjelly(inputs):
    return _step(inputs, lif.spikingjelly_layer(), False)


def norse(inputs):
    return _step(inputs, lif.norse_layer(), False)


def sinabs(inputs):
    return _step(inputs, lif.sinabs_layer(), False)


def snntorch_static(inputs):
    return _step(inputs, lif.snntorch_layer(), True)


def spikingjelly_static(inputs):
    return _step(inputs, lif.spikingjelly_layer(), True)


def norse_static(inputs):
    return _step(inputs, lif.norse_layer(), True)


def sinabs_static(inputs):
    return _step(inputs, lif.sinabs_layer(), True)


def plain(inputs):
    return _step(inputs, lif.plain_layer(), False)


def plain_static(inputs):
    return _step(inputs, lif.plain_layer(), True)


def plain_static_once(inputs):
    """By somebody who knows that the input is held: it is multiplied once."""
    return _step(inputs, lif.plain_layer(), True, once=True)
