"""NeuroBench's own numbers: `python neurobench_peer.py FOLDER case ...`, in the peers' environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
from neurobench.models import TorchModel
from neurobench_nets import NETS


def main(folder, *cases):
    found = {}
    for case in cases:
        net = NETS[case.partition("-")[0]]()
        net.load_state_dict(torch.load(Path(folder, f"{case}.pt"), weights_only=True))
        x = torch.load(Path(folder, f"{case}.x.pt"), weights_only=True)
        model = TorchModel(net)
        model.register_hooks()
        predictions = model(x)
        operations = SynapticOperations()(model, predictions, (x, None))
        found[case] = {
            "parameters": ParameterCount()(model),
            "footprint": Footprint()(model),
            "connection_sparsity": ConnectionSparsity()(model),
            "activation_sparsity": ActivationSparsity()(model, predictions, (x, None)),
            **{name.lower(): value for name, value in operations.items()},
        }
    Path(folder, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
