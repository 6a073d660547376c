# SPDX-License-Identifier: Apache-2.0
"""Real exports: names, modes, agreement, and what cannot be exported."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest

from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.core.model import Model
from burnish.graph.importers.torch import import_torch

torch = pytest.importorskip("torch")
nn = torch.nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, image):
        hidden = torch.relu(self.bn1(self.conv1(image)))
        hidden = torch.nn.functional.silu(self.grouped(self.depthwise(hidden)))
        return self.fc(self.drop(hidden.mean((2, 3))))


def run(model: Model, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.to_bytes())
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.fixture(scope="module")
def small() -> tuple[nn.Module, Model]:
    torch.manual_seed(0)
    module = Small()
    module(torch.randn(16, 3, 8, 8))  # moves the running statistics off their start
    module.fc.eval()
    return module, Model.from_torch(module, torch.randn(1, 3, 8, 8))


def test_network_names_and_operators(small) -> None:
    module, model = small
    assert str(model.signature) == "(image: float32[batch, 3, 8, 8]) -> (output: float32[batch, 5])"
    graph = model.edit().graph
    kinds = [node.op_type for node in graph]
    assert "BatchNormalization" in kinds
    assert kinds.count("Conv") == 3
    assert "Constant" not in kinds
    parameters = {name for name, _ in module.named_parameters()}
    assert parameters <= set(graph.initializers)
    for name, value in module.named_parameters():
        stored = graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(stored, value.detach().numpy())


def test_module_is_left_as_it_was(small) -> None:
    module, _ = small
    assert module.training
    assert module.bn1.training
    assert not module.fc.training
    assert int(module.bn1.num_batches_tracked) == 1


def test_differences_are_noted_and_small(small) -> None:
    _, model = small
    notes = model.lineage.notes
    assert model.lineage.source == "Small"
    assert 0 <= notes["export_max_abs_difference"] < 1e-5
    assert 0 <= notes["export_max_rel_difference"] < 1e-4
    assert "static_batch" not in notes


def test_model_does_not_follow_the_module(small) -> None:
    module, model = small
    before = model.digest
    weight = module.conv1.weight.detach().clone()
    with torch.no_grad():
        module.conv1.weight.zero_()
    assert Model(model.edit()).digest == before
    with torch.no_grad():
        module.conv1.weight.copy_(weight)


def test_agrees_at_other_batches_after_saving(small, tmp_path) -> None:
    module, model = small
    again = Model.load(model.save(tmp_path / "net.onnx"))
    assert again.digest == model.digest
    x = torch.randn(7, 3, 8, 8)
    modes = [(one, one.training) for one in module.modules()]
    module.eval()
    with torch.no_grad():
        expected = module(x).numpy()
    for one, mode in modes:
        one.training = mode
    np.testing.assert_allclose(run(again, image=x.numpy())["output"], expected, atol=1e-5)


def test_wrong_arguments() -> None:
    linear = nn.Linear(3, 2)
    with pytest.raises(Misuse, match=r"torch\.nn\.Module, got function"):
        import_torch(lambda x: x, torch.ones(1, 3))
    with pytest.raises(Misuse, match=r"do not fit Linear\.forward"):
        import_torch(linear, (torch.ones(1, 3), torch.ones(1, 3)))
    with pytest.raises(Misuse, match="hold no tensor"):
        import_torch(linear, {"input": None})
    with pytest.raises(Misuse, match="input is a list"):
        import_torch(linear, {"input": [1.0]})
    with pytest.raises(Misuse, match="fails on the example inputs"):
        import_torch(linear, torch.ones(1, 4))
    with pytest.raises(Misuse, match="input_names must be 1"):
        import_torch(linear, torch.ones(1, 3), input_names=["a", "b"])
    with pytest.raises(Misuse, match="different names"):
        import_torch(linear, torch.ones(1, 3), input_names=["a"], output_names=["a"])
    with pytest.raises(Unsupported, match="bfloat16"):
        import_torch(linear, torch.ones(1, 3, dtype=torch.bfloat16))
    assert linear.training


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(Missing, match=r"burnish\[train\]"):
        import_torch(object(), None)


@pytest.mark.slow
def test_several_inputs_and_dict_outputs(capfd: pytest.CaptureFixture[str]) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 6)
            self.out = nn.Linear(6, 3)

        def forward(self, tokens, mask=None, *, scale, flag=True):
            hidden = self.embed(tokens)
            if mask is not None and flag:
                hidden = hidden * mask.unsqueeze(-1)
            pooled = hidden.mean(1)
            return {"logits": self.out(pooled) * scale, "scale": scale, "state": (hidden, pooled)}

    inputs = {
        "tokens": np.arange(8, dtype=np.int64).reshape(1, 8) + 3,
        "scale": torch.full((1, 1), 2.0),
        "mask": np.ones((1, 8), np.float32),
        "flag": True,
    }
    model = import_torch(Two(), inputs)
    assert [spec.name for spec in model.signature.inputs] == ["tokens", "scale", "mask"]
    assert [spec.name for spec in model.signature.outputs] == [
        "logits", "scale_output", "state_0", "state_1",
    ]  # fmt: skip
    got = run(
        model,
        tokens=np.full((5, 8), 7),
        mask=np.ones((5, 8), np.float32),
        scale=np.ones((5, 1), np.float32),
    )
    assert got["logits"].shape == (5, 3)
    assert capfd.readouterr() == ("", "")


@dataclass
class Answer:
    boxes: object
    scores: object
    extra: object = None


@pytest.mark.slow
def test_dataclass_output_and_given_names() -> None:
    class Detector(nn.Module):
        def forward(self, x):
            return Answer(x * 2, x.sum(-1))

    model = import_torch(Detector(), torch.randn(2, 4))
    assert [spec.name for spec in model.signature.outputs] == ["boxes", "scores"]
    named = import_torch(
        Detector(), torch.randn(2, 4), input_names=["a"], output_names=["b", "c"], source="det"
    )
    outputs = "b: float32[batch, 4], c: float32[batch]"
    assert str(named.signature) == f"(a: float32[batch, 4]) -> ({outputs})"
    assert named.lineage.source == "det"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
def test_sequence_layers(kind: str) -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if kind == "lstm":
                self.layer = nn.LSTM(8, 8, batch_first=True)
            else:
                self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            out = self.layer(x)
            return out[0] if kind == "lstm" else out

    module = Sequence()
    model = import_torch(module, torch.randn(1, 5, 8))
    x = torch.randn(4, 5, 8)
    module.eval()
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(run(model, x=x.numpy())["output"], expected, atol=1e-5)
    initializers = model.edit().graph.initializers
    if kind == "transformer":
        assert {name for name, _ in module.named_parameters()} <= set(initializers)


@pytest.mark.slow
def test_a_fixed_batch_is_kept_and_said(caplog: pytest.LogCaptureFixture) -> None:
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(4, 6) @ torch.ones(6, 2)

    with caplog.at_level(logging.WARNING, "burnish"):
        model = import_torch(Fixed(), torch.randn(4, 2, 3))
    assert model.signature.inputs[0].shape == (4, 2, 3)
    assert "static_batch" in model.lineage.notes
    assert "static batch" in caplog.text
    assert model.lineage.notes["export_max_abs_difference"] < 1e-5


@pytest.mark.slow
def test_data_dependent_control_flow_is_explained() -> None:
    class Branch(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x - 1

    with pytest.raises(Unsupported, match=r"Branch cannot be exported.*control flow") as caught:
        import_torch(Branch(), torch.randn(2, 3))
    assert len(str(caught.value)) < 800


@pytest.mark.slow
def test_disagreement_is_refused_with_figures() -> None:
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    with pytest.raises(Unsupported, match=r"disagrees with Noisy: output 'output' differs by 0\."):
        import_torch(Noisy(), torch.randn(2, 3))
    assert import_torch(Noisy(), torch.randn(2, 3), check=False).lineage.notes.keys() == {
        "exporter"
    }
    assert import_torch(Noisy(), torch.randn(2, 3), tolerance=1e3)


@pytest.mark.slow
def test_scalar_input_unused_input_and_aliased_outputs() -> None:
    class Odd(nn.Module):
        def forward(self, x, unused, factor):
            y = x * factor
            return y, y, x

    model = import_torch(Odd(), (torch.randn(2, 3), torch.randn(2, 1), torch.tensor(3.0)))
    assert [spec.name for spec in model.signature.inputs] == ["x", "unused", "factor"]
    x = np.ones((1, 3), np.float32)
    got = run(model, x=x, unused=np.ones((1, 1), np.float32), factor=np.array(2, np.float32))
    assert got["output_0"].tolist() == got["output_1"].tolist() == [[2, 2, 2]]
    assert got["output_2"].tolist() == x.tolist()
