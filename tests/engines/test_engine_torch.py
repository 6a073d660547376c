# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from engine_contract import EngineContract
from small_models import convolutional, random_inputs, unknown_operator

from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.engines.torch import TorchEager

torch = pytest.importorskip("torch")


class Residual(torch.nn.Module):
    """The source of `small_models.convolutional`, in training mode, with a dropout to notice it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv2 = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head = torch.nn.Linear(8, 10)
        self.drop = torch.nn.Dropout(0.5)
        weights = {
            value.name: torch.from_numpy(value.const_value.numpy().copy())
            for value in convolutional().edit().graph.initializers.values()
        }
        with torch.no_grad():
            self.conv1.weight.copy_(weights["w1"])
            self.conv2.weight.copy_(weights["w2"])
            self.head.weight.copy_(weights["w3"])
            self.head.bias.copy_(weights["b3"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = torch.relu(self.conv1(x))
        return self.head(self.drop((b + self.conv2(b)).mean((2, 3))))


class TestTorchEager(EngineContract):
    models = (convolutional,)

    @pytest.fixture
    def engine(self) -> TorchEager:
        return TorchEager(Residual(), ["image"], ["logits"])

    def test_an_unknown_operator_is_named(self, engine: TorchEager) -> None:
        model = unknown_operator()  # it reads no graph: what it names are inputs and outputs
        assert [one.place for one in engine.refusals(model)] == ["x", "y"]
        with pytest.raises(Unsupported, match="x: the module Residual has no such input"):
            engine.open(model, Setting())


def test_modes_and_threads_come_back_when_the_last_session_closes() -> None:
    module = Residual()
    module.conv2.eval()
    before = [one.training for one in module.modules()]
    threads = torch.get_num_threads()
    engine = TorchEager(module, ["image"], ["logits"])
    inputs = random_inputs(convolutional(), 1)
    first = engine.open(convolutional(), Setting(1))
    expected = first.run(inputs)["logits"]
    second = engine.open(convolutional(), Setting(2))
    second.run(inputs)
    assert torch.get_num_threads() == 2
    first.close()
    np.testing.assert_allclose(second.run(inputs)["logits"], expected, atol=1e-5)
    second.close()
    assert [one.training for one in module.modules()] == before
    assert torch.get_num_threads() == threads


def test_several_inputs_by_name_and_nested_outputs() -> None:
    class Net(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict:
            pooled = (ids * mask).float()
            return {"pooled": pooled, "rest": (pooled + 1, [pooled + 2])}

    from onnx import TensorProto, helper
    from small_models import make

    model = make(
        [helper.make_node("Identity", ["ids"], [name]) for name in "abc"],
        [("mask", TensorProto.INT64, ["n", 2]), ("ids", TensorProto.INT64, ["n", 2])],
        [(name, TensorProto.INT64, ["n", 2]) for name in "abc"],
    )
    with TorchEager(Net(), ["mask", "ids"], ["a", "b", "c"]).open(model, Setting()) as session:
        got = session.run({"ids": np.array([[3, 4]]), "mask": np.array([[1, 0]])})
    assert got["a"].tolist() == [[3, 0]]
    assert got["b"].tolist() == [[4, 1]]
    assert got["c"].tolist() == [[5, 2]]


def test_refuses_what_is_not_the_module() -> None:
    engine = TorchEager(Residual(), ["image"], ["scores"])
    with pytest.raises(Unsupported, match=r"logits.*no such input or output"):
        engine.open(convolutional(), Setting())
    engine = TorchEager(Residual(), ["image"], ["logits", "image"])
    with engine.open(convolutional(), Setting()) as session, pytest.raises(Misuse, match="gave 1"):
        session.run(random_inputs(convolutional(), 1))
    meta = TorchEager(Residual().to("meta"), ["image"], ["logits"])
    with pytest.raises(Unsupported, match=r"conv1\.weight \[8, 3, 3, 3\] is on meta"):
        meta.open(convolutional(), Setting())
