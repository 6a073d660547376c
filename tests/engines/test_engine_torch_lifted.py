# SPDX-License-Identifier: Apache-2.0
import gc
import json
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from engine_contract import EngineContract
from onnx import TensorProto, helper
from small_models import convolutional, make, quantized, random_inputs, two_inputs

import burnish
from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.errors import Missing, Misuse, Unsupported
from burnish.core.model import Model
from burnish.engines.engine import by_name, installed
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.engines.torch import TorchEager
from burnish.engines.torch_lifted import TorchLifted

torch = pytest.importorskip("torch")

has_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++ is not found"
)
has_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class TestTorchLifted(EngineContract):
    @pytest.fixture
    def engine(self) -> TorchLifted:
        return TorchLifted()


@pytest.mark.gpu
@has_cuda
class TestTorchLiftedOnCuda(EngineContract):
    @pytest.fixture
    def engine(self) -> TorchLifted:
        return TorchLifted(device="cuda")


def transformer_block() -> Model:
    """Returns one block, attention and a GELU network: tokens (batch, length, 16) to the same."""
    rng = np.random.default_rng(3)
    shapes = {"wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "w1": (16, 32), "w2": (32, 16)}
    weights = {n: rng.normal(0, 0.3, shape).astype(np.float32) for n, shape in shapes.items()}
    weights |= {"g": np.ones(16, np.float32), "b": rng.normal(0, 0.1, 16).astype(np.float32)}
    weights |= {"heads": np.array([0, 0, 4, 4]), "merged": np.array([0, 0, 16])}
    weights["root"] = np.float32(0.5)
    node = helper.make_node
    nodes = [node("LayerNormalization", ["x", "g", "b"], ["n1"], "norm1")]
    for one in "qkv":
        order = [0, 2, 3, 1] if one == "k" else [0, 2, 1, 3]
        nodes += [
            node("MatMul", ["n1", f"w{one}"], [f"{one}0"], f"project_{one}"),
            node("Reshape", [f"{one}0", "heads"], [f"{one}1"], f"split_{one}"),
            node("Transpose", [f"{one}1"], [f"{one}2"], f"turn_{one}", perm=order),
        ]
    nodes += [
        node("MatMul", ["q2", "k2"], ["dots"], "dots"),
        node("Mul", ["dots", "root"], ["scaled"], "scale"),
        node("Softmax", ["scaled"], ["shares"], "softmax", axis=-1),
        node("MatMul", ["shares", "v2"], ["mixed"], "mix"),
        node("Transpose", ["mixed"], ["back"], "turn_back", perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "merged"], ["joined"], "join"),
        node("Add", ["x", "joined"], ["r1"], "add1"),
        node("LayerNormalization", ["r1", "g", "b"], ["n2"], "norm2"),
        node("MatMul", ["n2", "w1"], ["h1"], "up"),
        node("Gelu", ["h1"], ["h2"], "gelu"),
        node("MatMul", ["h2", "w2"], ["h3"], "down"),
        node("Add", ["r1", "h3"], ["y"], "add2"),
    ]
    shape: list[int | str] = ["batch", "length", 16]
    return make(
        nodes,
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        weights,
    )


def assert_same(engine: TorchLifted, model: Model, tolerance: float, batches=(1, 3, 5)) -> None:
    """Compares with ONNX Runtime; on a quantization grid one step of rounding may differ."""
    step = 8 / 255 if "features" in str(model.signature) else 0.0
    with (
        engine.open(model, Setting(1)) as session,
        OnnxRuntime().open(model, Setting(1)) as reference,
    ):
        for batch in batches:
            inputs = random_inputs(model, batch, seed=batch)
            got, expected = session.run(inputs), reference.run(inputs)
            assert got.keys() == expected.keys()
            for name, array in expected.items():
                assert got[name].dtype == array.dtype
                scale = max(1.0, float(np.abs(array).max()))
                np.testing.assert_allclose(
                    got[name], array, rtol=0, atol=1.01 * step + tolerance * scale
                )
                if step:
                    assert (got[name] == array).mean() > 0.99


models = pytest.mark.parametrize(
    "build", [convolutional, transformer_block, quantized], ids=lambda one: one.__name__
)


@models
def test_equals_onnx_runtime(build) -> None:
    assert_same(TorchLifted(), build(), 1e-5)


@pytest.mark.parametrize("build", [convolutional, transformer_block], ids=lambda one: one.__name__)
def test_bfloat16_stays_near_and_answers_in_the_models_types(build) -> None:
    assert_same(TorchLifted(precision="bfloat16"), build(), 0.03)


@pytest.mark.slow
@has_compiler
@models
def test_compiled_equals_onnx_runtime(build) -> None:
    assert_same(TorchLifted(mode="compiled"), build(), 1e-5)


@pytest.mark.slow
@has_compiler
def test_compiled_takes_many_batch_sizes_in_several_streams_and_is_freed() -> None:
    engine = TorchLifted(mode="compiled")
    EngineContract().test_one_session_takes_many_batch_sizes(engine)
    EngineContract().test_streams_run_side_by_side(engine)
    session = engine.open(convolutional(), Setting())
    session.run(random_inputs(convolutional(), 1))
    (module,) = (cell.cell_contents for cell in session._call.__wrapped__.__closure__)
    weight = weakref.ref(module.initializer("w1"))
    del module
    session.close()
    gc.collect()
    assert weight() is None


@pytest.mark.slow
@has_compiler
def test_compiled_sessions_do_not_share_a_limit() -> None:
    from torch._dynamo.utils import counters

    counters.clear()
    for seed in range(10):  # more than torch.compile keeps for one function
        model = convolutional(seed)
        with TorchLifted(mode="compiled").open(model, Setting(1)) as session:
            session.run(random_inputs(model, 2))
    assert counters["stats"]["unique_graphs"] == 10


@pytest.mark.gpu
@has_cuda
@models
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_cuda_equals_onnx_runtime(build, mode: str) -> None:
    assert_same(TorchLifted(mode, "cuda"), build(), 1e-5)


@pytest.mark.gpu
@has_cuda
@pytest.mark.parametrize("build", [convolutional, transformer_block], ids=lambda one: one.__name__)
@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_cuda_in_bfloat16_stays_near(build, mode: str) -> None:
    assert_same(TorchLifted(mode, "cuda", "bfloat16"), build(), 0.03)


@pytest.mark.gpu
@has_cuda
def test_cuda_is_offered_computes_in_full_and_frees_its_memory() -> None:
    assert "torch:cuda" in [one.name for one in installed()]
    before = torch.backends.cudnn.allow_tf32, torch.cuda.memory_allocated()
    with TorchLifted(device="cuda").open(convolutional(), Setting()) as session:
        session.run(random_inputs(convolutional(), 1))
        assert not torch.backends.cudnn.allow_tf32
    gc.collect()
    assert before == (torch.backends.cudnn.allow_tf32, torch.cuda.memory_allocated())


def test_the_identity_says_device_mode_and_precision() -> None:
    version = TorchLifted.version()
    assert TorchLifted().identity == f"torch {version} (cpu, eager, float32)"
    engine = by_name("torch:bfloat16:cuda:compiled")
    assert engine.identity == f"torch:cuda:compiled:bfloat16 {version} (cuda, compiled, bfloat16)"
    again = by_name(engine.identity.split()[0])  # what a bundle keeps
    assert again.identity == engine.identity


def test_unknown_options_are_refused() -> None:
    with pytest.raises(Misuse, match=r"precision.*'float23': did you mean 'float32'"):
        TorchLifted(precision="float23")
    with pytest.raises(Misuse, match=r"'compile': did you mean 'compiled'"):
        by_name("torch:compile")
    with pytest.raises(Misuse, match="one device, got 'cpu' and 'cuda'"):
        by_name("torch:cpu:cuda")


def test_all_that_has_no_lift_is_named_at_once() -> None:
    nodes = [
        helper.make_node("Wobble", ["x"], ["a"], "strange_1", domain="com.example"),
        helper.make_node("TfIdfVectorizer", ["a"], ["y"], "", mode="TF", max_gram_length=1,
                         max_skip_count=0, min_gram_length=1, ngram_counts=[0],
                         ngram_indexes=[0], pool_int64s=[1]),
    ]  # fmt: skip
    shape: list[int | str] = ["batch", 4]
    model = make(
        nodes,
        [("x", TensorProto.INT64, shape)],
        [("y", TensorProto.FLOAT, shape)],
        domains=("com.example",),
    )
    first, second = TorchLifted().refusals(model)
    assert first.place == "strange_1"
    assert "TfIdfVectorizer" in second.reason
    with pytest.raises(
        Unsupported,
        match=r"strange_1: no lift of the operator com\.example::Wobble.*TfIdfVectorizer",
    ):
        TorchLifted().open(model, Setting())


def test_a_failing_run_names_its_node() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "first"),
        helper.make_node("Reshape", ["a", "shape"], ["y"], "fold_2"),
    ]
    model = make(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 3])],
        [("y", TensorProto.FLOAT, ["half", 2])],
        {"shape": np.array([-1, 2])},
    )
    with (
        TorchLifted().open(model, Setting()) as session,
        pytest.raises(Unsupported, match=r"cannot run this model at node 'fold_2' \(operator"),
    ):
        session.run({"x": np.zeros((3, 3), np.float32)})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_it_says_so_and_is_not_offered() -> None:
    with pytest.raises(Unsupported, match=r"needs a CUDA device.*use another engine"):
        TorchLifted(device="cuda").open(convolutional(), Setting())
    assert TorchLifted.offered() == ()


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(Unsupported, match=r"C\+\+ compiler.*CXX"):
        TorchLifted(mode="compiled").open(convolutional(), Setting())


def test_without_pytorch_it_says_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Missing, match=r"pip install 'burnish\[train\]'"):
        TorchLifted().open(convolutional(), Setting())
    monkeypatch.setattr(TorchLifted, "version", classmethod(lambda cls: None))
    with pytest.raises(Missing, match=r"engine torch:cuda .*pip install 'burnish\[train\]'"):
        by_name("torch:cuda")


def test_closing_frees_the_weights_and_puts_the_threads_back() -> None:
    threads = torch.get_num_threads()
    session = TorchLifted().open(convolutional(), Setting(threads + 1))
    weight = weakref.ref(session._call.initializer("w1"))
    session.run(random_inputs(convolutional(), 1))
    assert torch.get_num_threads() == threads + 1
    session.close()
    gc.collect()
    assert weight() is None
    assert torch.get_num_threads() == threads


def test_the_last_of_all_sessions_puts_the_threads_back() -> None:
    # A race has the source's module and lifted ones open together, closed in any order.
    threads = torch.get_num_threads()
    model, inputs = convolutional(), random_inputs(convolutional(), 1)
    eager = TorchEager(torch.nn.Flatten(), ["image"], ["logits"]).open(model, Setting(threads + 1))
    eager.run(inputs)
    lifted = TorchLifted().open(model, Setting(threads + 2))
    eager.close()
    lifted.run(inputs)
    lifted.close()
    assert torch.get_num_threads() == threads


def test_types_that_numpy_lacks_go_in_and_out() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"], "negate")]
    shape: list[int | str] = ["n"]
    one = [("x", TensorProto.BFLOAT16, shape)], [("y", TensorProto.BFLOAT16, shape)]
    model = make(nodes, *one)
    dtype = np.dtype(model.signature.inputs[0].dtype)
    with TorchLifted().open(model, Setting()) as session:
        got = session.run({"x": np.array([1.5, -2.0]).astype(dtype)})["y"]
    assert got.dtype == dtype
    assert got.astype(float).tolist() == [-1.5, 2.0]


def test_a_bundle_is_served_by_it(tmp_path: Path) -> None:
    model = two_inputs()
    engine = TorchLifted()
    plan = {"engine": "torch", "engine_identity": engine.identity, "threads": 1, "streams": 1}
    bundle = Bundle.write(tmp_path / "bundle", model, model, {"plan": plan}, {})
    assert json.loads((bundle.path / "manifest.json").read_text())["plan"] == plan
    with burnish.open(bundle.path) as session:
        assert session.engine == engine.identity
        assert session.warnings == ()
        assert session.run(random_inputs(model, 2))["answer"].shape == (2,)
