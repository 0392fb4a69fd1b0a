"""NIR in a peer library, run in the peers' environment: `python nir_peers.py PEER DT FOLDER case ...`.

For each case, `case.nir` is run on `case.x.npy` and the answer written to `case.y.npy`. Where there is no
`case.nir`, the peer makes that network itself, runs it, and writes `case.nir` as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nir
import numpy as np
import torch
from torch import nn


def stepwise(net, x):
    outputs, state = [], None
    for step in x:
        y, state = net(step, state)
        outputs.append(y[0] if isinstance(y, tuple) else y)
    return torch.stack(outputs)


def snntorch_read(path, dt):
    from snntorch.import_nir import import_from_nir

    return import_from_nir(nir.read(path))


def norse_read(path, dt):
    import norse.torch

    return norse.torch.from_nir(nir.read(path), dt=dt)


def spikingjelly_read(path, dt):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(path, dt=dt)


def snntorch_made(case, x, path):
    import snntorch
    from snntorch.export_nir import export_to_nir
    from snntorch.utils import reset

    kinds = {"leaky": snntorch.Leaky, "synaptic": snntorch.Synaptic, "recurrent": snntorch.RLeaky}
    # without these the net does not do what its graph says: NIR knows no delayed and no subtracted reset
    options = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
    options |= {"beta": torch.full((6,), 0.8), "threshold": torch.full((6,), 0.7)}
    if case == "synaptic":
        cell = kinds[case](alpha=torch.full((6,), 0.6), **options)
    elif case == "recurrent":
        cell = kinds[case](linear_features=6, **options)
        nn.init.zeros_(cell.recurrent.bias)
    else:
        cell = kinds[case](**options)
    net = nn.Sequential(nn.Linear(x.shape[-1], 6), cell)
    nir.write(path, export_to_nir(net, x[0, 0]))
    reset(net)
    return torch.stack([net(step) for step in x])


def norse_made(case, x, path):
    import norse.torch as norse

    params = norse.LIFBoxParameters(
        tau_mem_inv=torch.full((6,), 200.0), v_th=torch.full((6,), 0.3), v_leak=torch.zeros(6)
    )
    net = norse.SequentialState(nn.Linear(x.shape[-1], 6), norse.LIFBoxCell(params))
    node = nir.LIF(
        tau=1 / params.tau_mem_inv.numpy(),
        r=np.ones(6, np.float32),
        v_leak=np.zeros(6, np.float32),
        v_threshold=params.v_th.numpy(),
    )
    affine = nir.Affine(net[0].weight.detach().numpy(), net[0].bias.detach().numpy())
    nir.write(path, nir.NIRGraph.from_list(affine, node))
    return stepwise(net, x)


def spikingjelly_made(case, x, path):
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    cell = neuron.LIFNode(tau=4.0, decay_input=case == "decayed", v_threshold=0.5, v_reset=0.0)
    net = nn.Sequential(layer.Linear(x.shape[-1], 6), cell)
    nir.write(path, export_to_nir(net, x[0], dt=1e-4))
    functional.reset_net(net)
    return torch.stack([net(step) for step in x])


def main(peer, dt, folder, *cases):
    torch.manual_seed(0)
    for case in cases:
        path, x = Path(folder, f"{case}.nir"), torch.from_numpy(np.load(Path(folder, f"{case}.x.npy")))
        with torch.no_grad():
            if path.is_file():
                y = stepwise(globals()[f"{peer}_read"](str(path), float(dt)), x)
            else:
                y = globals()[f"{peer}_made"](case, x, str(path))
        np.save(Path(folder, f"{case}.y.npy"), y.numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
