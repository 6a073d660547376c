# SPDX-License-Identifier: Apache-2.0
"""Random networks of every operator that channels are followed through."""

from __future__ import annotations

import numpy as np
from network_builder import Network
from onnx import TensorProto
from random_steps import ANY, MAPS, SEQUENCES, VECTORS, convolve

from burnish.core.model import Model


def random_network(seed: int, n_steps: int) -> Network:
    """Returns a network of about that many steps, whose outputs are still to be named."""
    n = Network(seed)
    tensors = [n.input("image", TensorProto.FLOAT, (3, 8, 8))]
    tensors.append(convolve(n, tensors[0]))
    if n.pick(True, False):
        ids, width = n.input("ids", TensorProto.INT64, (5,)), int(n.rng.integers(3, 9))
        tensors.append(n.one("Gather", [n.weight(20, width), ids], (5, width)))
        n.hide(ids)
    for _ in range(n_steps):
        # Mostly the newest, so that the network is deep.
        x = tensors[-1] if n.rng.random() < 0.6 else n.pick(*tensors)
        if x not in n.shapes:
            continue
        kind = {3: MAPS, 1: VECTORS, 2: SEQUENCES}[len(n.shapes[x])]
        step = n.pick(*kind) if n.rng.random() < 0.7 else n.pick(*ANY)
        y = step(n, x)
        if np.prod(n.shapes[y]) < 4000:
            tensors.append(y)
    return n


def finish(n: Network) -> Model:
    """Returns the model: most tensors that nothing reads get a last layer, then are outputs."""
    outputs: list[str] = []
    for name in list(n.unread):
        x, shape = name, n.shapes[name]
        if len(shape) == 3:
            x = n.one("ReduceMean", [x, n.ints(2, 3)], shape[:1], keepdims=0)
        if n.rng.random() < 0.9:
            c = n.shapes[x][-1]
            x = n.one("MatMul", [x, n.weight(c, 3)], (*n.shapes[x][:-1], 3))
        outputs.append(x)
    return n.model(outputs)
