"""One layer of leaky neurons that learns by pair STDP while it runs, as peers have it.

Both deliver a spike one step later than the plain version, so weights are not compared; activity is alike.
"""

import numpy as np

TAU = 20.0


def bindsnet(inputs):
    import torch
    from bindsnet.learning import PostPre
    from bindsnet.network import Network
    from bindsnet.network.nodes import Input, LIFNodes
    from bindsnet.network.topology import Connection

    weight = torch.from_numpy(inputs["weight"].T.copy())
    spikes = torch.from_numpy(inputs["pre"]).unsqueeze(1).bool()
    rate, threshold = float(inputs["rate"][0]), float(inputs["threshold"][0])
    network = Network(dt=1.0)
    source = Input(n=weight.shape[0], traces=True, tc_trace=TAU, traces_additive=True)
    layer = LIFNodes(
        n=weight.shape[1], traces=True, tc_trace=TAU, traces_additive=True, rest=0.0, reset=0.0, thresh=threshold,
        refrac=0, tc_decay=TAU,
    )  # fmt: skip
    connection = Connection(
        source, layer, w=weight.clone(), update_rule=PostPre, nu=(rate, rate), wmin=0.0, wmax=1.0
    )
    network.add_layer(source, name="source")
    network.add_layer(layer, name="layer")
    network.add_connection(connection, source="source", target="layer")

    def run():
        network.reset_state_variables()
        connection.w.data.copy_(weight)
        network.run(inputs={"source": spikes}, time=len(spikes))

    return run


def brian2(inputs):
    import brian2 as b

    b.prefs.codegen.target = "cython"
    b.defaultclock.dt = 1 * b.ms
    outputs, count = inputs["weight"].shape
    times, index = inputs["pre"].nonzero()
    source = b.SpikeGeneratorGroup(count, index, times * b.ms)
    layer = b.NeuronGroup(
        outputs, "dv/dt = -v / tau : 1", threshold="v >= theta", reset="v = 0", method="exact",
        namespace={"tau": TAU * b.ms, "theta": float(inputs["threshold"][0])},
    )  # fmt: skip
    synapses = b.Synapses(
        source, layer,
        """w : 1
        dx/dt = -x / tau : 1 (event-driven)
        dy/dt = -y / tau : 1 (event-driven)""",
        on_pre="""v_post += w
        x += 1
        w = clip(w - rate * y, 0, 1)""",
        on_post="""y += 1
        w = clip(w + rate * x, 0, 1)""",
        namespace={"tau": TAU * b.ms, "rate": float(inputs["rate"][0])},
    )  # fmt: skip
    synapses.connect()
    synapses.w = inputs["weight"].T.ravel()
    network = b.Network(source, layer, synapses)
    network.run(0 * b.ms)
    network.store()
    steps = len(inputs["pre"])

    def run():
        network.restore()
        network.run(steps * b.ms)

    return run


def plain_numpy(inputs):
    """The equations, looking only at what spiked."""
    pre, rate, threshold = inputs["pre"], inputs["rate"][0], inputs["threshold"][0]
    decay = np.float32(np.exp(-1 / TAU))

    def run():
        weight = inputs["weight"].copy()
        outputs, count = weight.shape
        x, y, v = np.zeros(count, np.float32), np.zeros(outputs, np.float32), np.zeros(outputs, np.float32)
        for spikes in pre:
            (fired,) = spikes.nonzero()
            x, y = decay * x + spikes, decay * y
            columns = weight[:, fired]
            u = decay * v + columns.sum(1)
            (won,) = (u >= threshold).nonzero()
            weight[:, fired] = np.maximum(columns - rate * y[:, None], 0)
            weight[won] = np.clip(weight[won] + rate * x, 0, 1)
            u[won] = 0
            y[won] += 1
            v = u
        return {"change": weight - inputs["weight"]}

    return run
