# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from engine_contract import EngineContract
from onnx import TensorProto, helper
from small_models import convolutional, make, random_inputs

from burnish.core.candidate import Setting
from burnish.engines.openvino import OpenVino

if OpenVino.version() is None:
    pytest.skip("OpenVINO is not installed", allow_module_level=True)


class TestOpenVino(EngineContract):
    @pytest.fixture
    def engine(self) -> OpenVino:
        return OpenVino()


def test_float_models_keep_float32_precision() -> None:
    # bfloat16 has 8 bits: it would miss the reference by about 1 %, whatever the CPU.
    import openvino

    with OpenVino().open(convolutional(), Setting(2, 1)) as session:
        session.run(random_inputs(convolutional(), 1))
        request = session._pools[1].get()
        compiled = request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("ENABLE_CPU_PINNING") is False


def test_compiled_batch_sizes_are_bounded() -> None:
    model = convolutional()
    with OpenVino().open(model, Setting()) as session:
        assert list(session._pools) == [1]
        for batch in range(1, 30):
            session.run(random_inputs(model, batch))
        assert len(session._pools) == 9


def test_a_model_of_fixed_batch_size_runs() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu")]
    model = make(nodes, [("x", TensorProto.FLOAT, [2, 3])], [("y", TensorProto.FLOAT, [2, 3])])
    x = np.array([[-1, 0, 1], [2, -2, 3]], np.float32)
    with OpenVino().open(model, Setting()) as session:
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))
