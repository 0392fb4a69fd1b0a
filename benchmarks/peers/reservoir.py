"""An echo state network of reservoirpy, with given weights."""

import numpy as np


def reservoirpy(inputs):
    from reservoirpy.nodes import Reservoir
    from scipy import sparse

    units = len(inputs["input_weight"])
    connections = sparse.csr_array(
        (inputs["values"], inputs["columns"], inputs["offsets"]), shape=(units, units)
    )
    node = Reservoir(
        W=connections, Win=inputs["input_weight"], bias=np.zeros(units), lr=float(inputs["leak"][0])
    )  # fmt: skip
    x = inputs["x"]
    node.run(x[:2])

    def run():
        node.reset()
        return {"states": node.run(x)[:: len(x) // 10]}

    return run
