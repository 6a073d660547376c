# SPDX-License-Identifier: Apache-2.0
"""A network that PyTorch compiles trains as the one that it does not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from training_nets import digits, untrained

from burnish.core.errors import Unsupported
from burnish.core.technique import Context
from burnish.data.losses import loss
from burnish.data.samples import ArraySamples
from burnish.graph.lift.module import lift
from burnish.techniques.train.loop import fit
from burnish.techniques.train.task_losses import task_objective
from burnish.techniques.train.training import Training


def _trained(compiled: bool) -> dict[str, torch.Tensor]:
    images, classes = digits()
    module = lift(untrained())
    training = Training(epochs=2, batch_size=32, optimizer="sgd", compiled=compiled)
    samples = ArraySamples({"image": images[:160]}, classes[:160])
    fit(module, samples, task_objective(loss("cross_entropy")), training, Context(seed=5))
    return module.state_dict()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with a C++ compiler")
def test_compiled_training_gives_the_same_weights_but_for_rounding() -> None:
    plain, compiled = _trained(False), _trained(True)
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        np.testing.assert_allclose(compiled[name], tensor, rtol=1e-3, atol=1e-4, err_msg=name)


def test_where_there_is_no_compiler_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(module: torch.nn.Module, **_: object) -> object:
        def run(*_: object) -> None:
            raise torch._inductor.exc.InvalidCxxCompiler("no working C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(Unsupported, match="compiled = false"):
        _trained(True)
