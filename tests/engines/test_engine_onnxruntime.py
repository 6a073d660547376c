# SPDX-License-Identifier: Apache-2.0
import pytest
from engine_contract import EngineContract

from burnish.engines.onnxruntime import OnnxRuntime


class TestOnnxRuntime(EngineContract):
    @pytest.fixture
    def engine(self) -> OnnxRuntime:
        return OnnxRuntime()
