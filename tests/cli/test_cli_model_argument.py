# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from burnish.cli.model_argument import load_model
from burnish.cli.self_check import network
from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.task import Task
from burnish.data.samples import ArraySamples

NET = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))

def pair():
    return net(), torch.zeros(2, 4)

ready = net()

class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def forward(self, row, scale):
        return self.inner(row) * scale

def text():
    return "no module"

def needs(width):
    return net()

def broken():
    return {}["weights"]
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_net.py"


def _task(n=5, **shapes):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in shapes.items()
    }
    return Task("t", calibration=ArraySamples(arrays))


def test_onnx_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(network(np.random.default_rng(0)))
    given = load_model(str(tmp_path / "net.onnx"))
    assert given.name == "net.onnx"
    assert [one.name for one in given.model.signature.inputs] == ["image"]
    assert given.source is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["net", "pair", "ready"])
@pytest.mark.parametrize("n", [1, 5])
def test_module_takes_the_tasks_input_names_and_is_its_own_baseline(program, name, n):
    task = _task(n, row=(4,))
    given = load_model(f"{program}:{name}", task)
    assert [one.name for one in given.model.signature.inputs] == ["row"]
    assert isinstance(given.model.signature.inputs[0].shape[0], str)
    inputs = next(task.calibration.batches(2)).inputs
    from burnish.engines.engine import by_name

    with given.source.open(given.model, Setting()) as session:
        eager = session.run(inputs)
    with by_name("onnxruntime").open(given.model, Setting()) as session:
        exported = session.run(inputs)
    for key, value in eager.items():
        np.testing.assert_allclose(exported[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_inputs_go_by_name_where_forward_has_them(program):
    given = load_model("my_net:Own", _task(scale=(2,), row=(4,)))
    assert {one.name: one.shape[1] for one in given.model.signature.inputs} == {
        "row": 4,
        "scale": 2,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_net.py:net", "example inputs"),
        ("my_net.py:text", "got str"),
        ("my_net.py:needs", "missing 1 required positional argument"),
        ("my_net.py:broken", r"my_net.py, line 28: KeyError"),
        ("my_net.py:nett", "has no 'nett'"),
        ("my_nett.py:net", r"did you mean 'my_net.py'\?"),
        ("no_such_module:net", "no module 'no_such_module'"),
        ("my-net.py:net", "rename"),
        ("faulty.py:net", r"faulty.py, line 2: SyntaxError"),
        ("", "no model"),
    ],
)
def test_what_cannot_be_a_model_says_why(program, text, message):
    (program.parent / "my-net.py").write_text(NET)
    (program.parent / "faulty.py").write_text("x = 1\ndef net(:\n")
    with pytest.raises(Misuse, match=message):
        load_model(text)
