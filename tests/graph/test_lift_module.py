# SPDX-License-Identifier: Apache-2.0
"""What a lifted module promises: names, modes, gradients, and the way back."""

import copy
import weakref

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from burnish.core.errors import Misuse, Unsupported
from burnish.core.model import Model
from burnish.graph.lift.lower import lower
from burnish.graph.lift.module import lift

nn = torch.nn


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.drop = nn.Dropout(0.0)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + torch.nn.functional.hardswish(x)
        x = self.depth(x)[:, :, ::2, ::2]
        return self.fc(self.drop(x.mean((2, 3)).flatten(1)))


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(0)
    net = Small()
    net(torch.randn(16, 3, 8, 8))  # statistics that are not 0 and 1
    return net.eval()


@pytest.fixture(scope="module")
def model(source):
    return Model.from_torch(source, torch.randn(2, 3, 8, 8))


@pytest.fixture
def module(model):
    return lift(model)


def images(seed, batch=4):
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def text_model(text):
    """Returns the graph of ONNX's text form."""
    return ir.from_proto(parser.parse_model(text))


def test_the_parameters_are_the_sources(source, module):
    mine = {name.replace("/", "."): one for name, one in module.named_parameters()}
    theirs = dict(source.named_parameters())
    extra = set(mine) - set(theirs)  # the exporter gives every convolution a bias
    assert set(theirs) <= set(mine)
    assert all(not mine[name].any() for name in extra)
    for name, one in theirs.items():
        torch.testing.assert_close(module.initializer(name), one)
    for name in ("bn1.running_mean", "bn1.running_var"):
        assert not module.initializer(name).requires_grad
    assert {"conv1.weight", "bn1.running_var"} <= dict(module.named_initializers()).keys()


def test_outputs_and_gradients_are_the_sources(source, module):
    net = copy.deepcopy(source)
    x = images(1)
    expected = net(x)
    got = module({"x": x})["output"]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    expected.square().sum().backward()
    got.square().sum().backward()
    for name, one in net.named_parameters():
        torch.testing.assert_close(module.initializer(name).grad, one.grad, atol=1e-5, rtol=1e-4)


def test_training_mode_moves_the_statistics_as_torch_does(source, module):
    net = copy.deepcopy(source).train()
    module.train()
    for seed in range(3):
        expected, got = net(images(seed)), module({"x": images(seed)})["output"]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    for name in ("bn1.running_mean", "bn1.running_var"):
        torch.testing.assert_close(module.initializer(name), net.get_buffer(name))
    module.momentum = 1.0
    module({"x": images(9)})
    found = module({"x": images(9)}, keep=["x"])["x"]
    mean = net.conv1(found).mean((0, 2, 3))
    torch.testing.assert_close(module.initializer("bn1.running_mean"), mean, atol=1e-5, rtol=1e-4)


def test_kept_values_are_the_graphs(model, module):
    names = [node.outputs[0].name for node in model.edit().graph][:3]
    made = module({"x": images(0)}, keep=names)
    assert set(made) == {"output", *names}
    assert tuple(made[names[0]].shape) == (4, 8, 8, 8)
    with pytest.raises(Misuse, match=r"unknown value of the graph 'relu_x'.*did you mean"):
        module({"x": images(0)}, keep=["relu_x"])


def test_a_missing_input_is_named(module):
    with pytest.raises(Misuse, match=r"missing: \['x'\]"):
        module({"y": images(0)})


def test_an_error_while_running_names_the_node(module):
    with pytest.raises(RuntimeError) as caught:
        module({"x": torch.zeros(1, 4, 8, 8)})
    assert "in the node node_conv2d of the lifted graph" in caught.value.__notes__


def test_a_copy_has_its_own_weights_and_mode(module):
    other = copy.deepcopy(module).train()
    with torch.no_grad():
        other.initializer("fc.bias").add_(1.0)
    assert not module.training
    difference = other.eval()({"x": images(0)})["output"] - module({"x": images(0)})["output"]
    torch.testing.assert_close(difference, torch.ones(4, 5))


def test_state_goes_to_another_module(model, module):
    other = lift(model)
    with torch.no_grad():
        module.initializer("fc.weight").mul_(2.0)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other({"x": images(0)}), module({"x": images(0)}))


def test_an_untouched_module_gives_the_same_model(model, module):
    assert Model(lower(module, model)).digest == model.digest
    assert Model(lower(module.to(torch.float64), model)).digest == model.digest


def test_trained_weights_are_in_the_lowered_graph(model, module):
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module.train()
    module({"x": images(0)})["output"].square().sum().backward()
    optimizer.step()
    module.eval()
    lowered = Model(lower(module, model))
    assert lowered.digest != model.digest
    assert lowered.signature == model.signature
    weights = lowered.edit().graph.initializers
    for name in ("conv1.weight", "bn1.running_mean", "fc.bias"):
        held = weights[name].const_value.numpy()
        np.testing.assert_array_equal(held, module.initializer(name).detach().numpy())
    again = lift(lowered)({"x": images(5)})["output"]
    torch.testing.assert_close(again, module({"x": images(5)})["output"])


def test_weights_that_cannot_be_written_back_are_all_named(model, module):
    with torch.no_grad():
        module.initializer("fc.bias")[0] = float("nan")
        module.initializer("conv1.weight").data = torch.zeros(8, 3, 1, 1)
    with pytest.raises(Misuse, match=r"(?s)conv1\.weight.*fc\.bias.*|fc\.bias.*conv1\.weight"):
        lower(module, model)


def test_initializers_become_parameters_and_buffers_on_request(module):
    assert module.train_initializer("conv1.weight", trained=False).requires_grad is False
    assert "conv1/weight" not in dict(module.named_parameters())
    assert "conv1/weight" in dict(module.named_buffers())
    module({"x": images(0)})["output"].sum().backward()
    assert module.initializer("fc.weight").grad is not None
    weight = module.train_initializer("conv1.weight")
    module({"x": images(0)})["output"].sum().backward()
    assert weight.grad is not None
    assert "conv1/weight" not in dict(module.named_buffers())
    with pytest.raises(Misuse, match="unknown initializer"):
        module.train_initializer("nothing")


def test_a_limit_that_is_read_once_cannot_be_trained():
    module = lift(
        text_model("""<ir_version: 10, opset_import: ["" : 21]>
        main (float[2] x) => (float[2] y) <float low = {0.0}, float high = {6.0}> {
            y = Clip(x, low, high)
        }""")
    )
    with pytest.raises(Misuse, match="high cannot be trained: its operator read it once"):
        module.train_initializer("high")


def test_all_nodes_without_a_lift_are_named():
    graph = text_model("""<ir_version: 10, opset_import: ["" : 21, "my.domain" : 1]>
        main (float[2] x) => (float[2] y, string[2] s) {
            a = Relu(x)
            [odd] b = my.domain.Odd(a)
            [text] s = StringNormalizer(b)
            [draw] y = RandomNormalLike(b)
        }""")
    with pytest.raises(Unsupported) as caught:
        lift(graph)
    for place, kind in (
        ("odd", "my.domain::Odd"), ("text", "StringNormalizer"), ("draw", "RandomNormalLike"),
    ):  # fmt: skip
        assert f"{place}: no lift of the operator {kind}" in str(caught.value)
    assert "Relu" not in str(caught.value)


def test_odd_names_do_not_collide():
    names = ["a.b", "a/b", "type", "training", "forward", "1"]
    nodes, last = [], "x"
    for name in names:
        nodes.append(helper.make_node("Add", [last, name], [f"sum {name}"]))
        last = f"sum {name}"
    arrays = {name: np.full(2, number + 1.0, np.float32) for number, name in enumerate(names)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    module = lift(ir.from_proto(proto))
    assert len(list(module.parameters())) == len(names)
    for name, array in arrays.items():
        np.testing.assert_array_equal(module.initializer(name).detach().numpy(), array)
    assert module({"x": torch.zeros(2)})[last].tolist() == [21.0, 21.0]


def test_masks_scales_and_single_factors_are_not_trained():
    mask = np.where(np.tri(4), 0.0, -1e9).astype(np.float32)
    arrays = {
        "weight": np.ones((4, 4), np.float32),
        "mask": mask,
        "factor": np.float32(0.5),
        "step": np.float32(0.1),
        "prelu": np.float32([0.25]),
        "moved": np.ones((2, 2), np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["weight", "step"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "mask"], ["b"]),
        helper.make_node("Mul", ["b", "factor"], ["c"]),
        helper.make_node("Flatten", ["moved"], ["row"], axis=0),
        helper.make_node("Add", ["c", "row"], ["d"]),
        helper.make_node("PRelu", ["d", "prelu"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    module = lift(ir.from_proto(proto))
    assert set(dict(module.named_parameters())) == {"weight", "prelu", "moved"}
    with pytest.raises(Misuse, match="only real numbers are trained"):
        lift(
            text_model("""<ir_version: 10, opset_import: ["" : 21]>
            main (int64[2] x) => (int64[2] y) <int64[1] one = {1}> { y = Add(x, one) }
            """)
        ).train_initializer("one")


def test_arithmetic_on_shapes_stays_on_the_host():
    module = lift(
        text_model(
            """<ir_version: 10, opset_import: ["" : 21]>
        main (float[n, c, h, w] x) => (float[n, m] y, int64[1] rest, int64[k] places)
        <int64[1] zero = {0}, int64 one = {1}, int64[1] minus = {-1}, int64[1] two = {2},
         int64 nothing = {0}> {
            sizes = Shape(x)
            batch = Gather(sizes, zero)
            area = Slice(sizes, two, last)
            last = Size(sizes)
            y = Reshape(x, target)
            rest = Identity(batch)
            places = Range(nothing, count, one)
        }""".replace("area = Slice(sizes, two, last)", "count = Gather(sizes, one)").replace(
                "last = Size(sizes)", "target = Concat<axis = 0>(batch, minus)"
            )
        )
    )
    made = module({"x": torch.zeros(2, 3, 4, 5)}, keep=["sizes", "count"])
    assert tuple(made["y"].shape) == (2, 60)
    assert made["rest"].tolist() == [2]
    assert made["places"].tolist() == [0, 1, 2]
    assert made["sizes"].tolist() == [2, 3, 4, 5]
    assert made["count"].item() == 3
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert tuple(compiled({"x": torch.zeros(3, 2, 4, 5)})["y"].shape) == (3, 40)


def test_bodies_read_what_is_around_them_and_are_trained():
    module = lift(
        text_model("""<ir_version: 10, opset_import: ["" : 21]>
        main (float[2] x, bool more) => (float[2] y)
        <float[2] weight = {2.0, 3.0}> {
            h = Mul(x, weight)
            y = If (more) <
                then_branch = yes () => (float[2] a) { t = Mul(h, weight)  a = Identity(t) },
                else_branch = no () => (float[2] b) {
                    k = Constant <value = float[2] {5.0, 5.0}> ()
                    b = Add(h, k)
                }
            >
        }""")
    )
    x = torch.tensor([1.0, 1.0])
    assert module({"x": x, "more": torch.tensor(True)})["y"].tolist() == [4.0, 9.0]
    assert module({"x": x, "more": torch.tensor(False)})["y"].tolist() == [7.0, 8.0]
    module({"x": x, "more": torch.tensor(True)})["y"].sum().backward()
    assert module.initializer("weight").grad.tolist() == [4.0, 6.0]
    assert module.initializer("k").tolist() == [5.0, 5.0]


def test_dropout_drops_only_in_training():
    module = lift(
        text_model("""<ir_version: 10, opset_import: ["" : 21]>
        main (float[1000] x) => (float[1000] y) <float ratio = {0.25}> { y = Dropout(x, ratio) }
        """)
    )
    x = torch.ones(1000)
    torch.testing.assert_close(module({"x": x})["y"], x)
    y = module.train()({"x": x})["y"]
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.08)  # more than five standard deviations
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / 0.75]))


def test_dead_values_are_freed(module):
    made = []
    for step in module._program.steps:
        inner = step.run

        def watched(*given, inner=inner):
            result = inner(*given)
            if isinstance(result, torch.Tensor):
                made.append(weakref.ref(result))
            return result

        step.run = watched
    with torch.no_grad():
        output = module({"x": images(0)})
    alive = [one for one in made if one() is not None]
    assert len(made) > 5
    assert len(alive) == 1
    assert alive[0]() is output["output"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_runs_in_either_memory_format_and_in_bfloat16(module, layout):
    expected = module({"x": images(0)})["output"]
    module.to(memory_format=layout)
    x = images(0).contiguous(memory_format=layout)
    torch.testing.assert_close(module({"x": x})["output"], expected, atol=1e-5, rtol=1e-4)
    module.train()
    with torch.autocast("cpu", torch.bfloat16):
        half = module({"x": x})["output"]
    half.float().sum().backward()
    assert half.dtype == torch.bfloat16
    assert all(one.grad is not None for one in module.parameters() if one.any())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_whole_and_for_any_batch(module, backend):
    torch._dynamo.reset()
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    for batch in (4, 3, 2):
        x = images(batch, batch)
        torch.testing.assert_close(compiled({"x": x})["output"], module({"x": x})["output"])


@pytest.mark.gpu
def test_it_runs_and_trains_on_a_gpu(module, model):
    expected = module({"x": images(0)})["output"]
    module.to("cuda").to(memory_format=torch.channels_last)
    with torch.no_grad():
        got = module({"x": images(0).cuda()})["output"]
    torch.testing.assert_close(got.cpu(), expected, atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        module.train()({"x": images(0).cuda()})["output"].float().sum().backward()
    assert module.initializer("fc.weight").grad.is_cuda
    x = images(1).cuda()
    torch.cuda.set_sync_debug_mode("error")  # nothing in a call waits for the device
    try:
        module({"x": x})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert Model(lower(module, model)).signature == model.signature
