"""Layers of leaky neurons in peer libraries, forward and backward, each in its fastest documented form.

`u = v / 2 + x`, a spike at `u >= 1`, soft reset, arctangent surrogate of slope 2 where there is one, no gradient
through the reset where that can be chosen.
"""

import math

import torch


def _through_time(inputs, layer):
    """Run `layer(x)` on a sequence that asks for its gradient, and send the given gradient back."""
    x = torch.from_numpy(inputs["x"]).requires_grad_()
    gradient = torch.from_numpy(inputs["gradient"])

    def run():
        x.grad = None
        spikes = layer(x)
        spikes.backward(gradient)
        return {"spikes": spikes, "gradient": x.grad}

    return run


class _Spike(torch.autograd.Function):
    """Step with the arctangent's slope."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + (math.pi * u) ** 2)


def plain_layer():
    """No library: the equations in the leanest loop."""

    def layer(x):
        membrane, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            membrane = 0.5 * membrane + current
            spike = _Spike.apply(membrane - 1)
            membrane = membrane - spike.detach()
            spikes.append(spike)
        return torch.stack(spikes)

    return layer


def snntorch_layer():
    """Leaky with its default reset, one step late, which needs the fewest operations."""
    import snntorch

    neuron = snntorch.Leaky(beta=0.5, spike_grad=snntorch.surrogate.atan(alpha=2.0))

    def layer(x):
        membrane, spikes = neuron.reset_mem(), []
        for current in x.unbind(0):
            spike, membrane = neuron(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return layer


def spikingjelly_layer():
    """LIFNode over the whole sequence."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=2.0, decay_input=False, v_reset=None, surrogate_function=surrogate.ATan(2.0), detach_reset=True,
        step_mode="m",
    )  # fmt: skip

    def layer(x):
        functional.reset_net(node)
        return node(x)

    return layer


def norse_layer():
    """LIFBoxCell, which leaves the synaptic current out. Its input is halved, hence the factor."""
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.module.lif_box import LIFBoxCell

    cell = LIFBoxCell(
        LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), reset_method=reset_subtract), dt=0.001
    )

    def layer(x):
        state, spikes = None, []
        for current in (2 * x).unbind(0):
            spike, state = cell(current, state)
            spikes.append(spike)
        return torch.stack(spikes)

    return layer


def sinabs_layer():
    """LIF; it wants the batch first."""
    import sinabs.activation as activation
    import sinabs.layers as layers

    lif = layers.LIF(tau_mem=1 / math.log(2), spike_fn=activation.SingleSpike, norm_input=False)

    def layer(x):
        lif.reset_states()
        return lif(x.transpose(0, 1)).transpose(0, 1)

    return layer


def snntorch(inputs):
    return _through_time(inputs, snntorch_layer())


def spikingjelly(inputs):
    return _through_time(inputs, spikingjelly_layer())


def norse(inputs):
    return _through_time(inputs, norse_layer())


def sinabs(inputs):
    return _through_time(inputs, sinabs_layer())


def plain(inputs):
    return _through_time(inputs, plain_layer())
