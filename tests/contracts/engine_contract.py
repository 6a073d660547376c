# SPDX-License-Identifier: Apache-2.0
"""What every engine promises. Inherit it, give `engine`, and pytest holds yours to it:

class TestMine(EngineContract):
    @pytest.fixture
    def engine(self):
        return Mine()
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_models import (
    convolutional,
    quantized,
    random_inputs,
    two_inputs,
    unknown_operator,
)

from burnish.core.candidate import Setting
from burnish.core.errors import BurnishError, Misuse, Unsupported
from burnish.core.model import Model
from burnish.engines.engine import Engine, Session


def reference(model: Model, inputs: dict) -> dict:
    """Returns the outputs of ONNX's own reference evaluator."""
    import onnx

    evaluator = ReferenceEvaluator(onnx.load_from_string(model.to_bytes()))
    names = [spec.name for spec in model.signature.outputs]
    return dict(zip(names, evaluator.run(names, inputs), strict=True))


class EngineContract:
    """The contract; `models` may be overridden by an engine that runs fewer."""

    models = (convolutional, two_inputs, quantized)
    integer_step: ClassVar = {"features": 8 / 255}
    """Outputs on a quantization grid may differ by one step, by how ties are rounded."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError("a subclass gives the engine")

    def test_has_an_identity(self, engine: Engine) -> None:
        version = engine.version()
        assert version
        assert engine.name in engine.identity
        assert version in engine.identity
        assert engine.device in engine.identity

    @pytest.mark.parametrize("batch", [1, 2, 7])
    @pytest.mark.parametrize("setting", [Setting(1, 1), Setting(2, 1), Setting(1, 2)], ids=str)
    def test_equals_the_reference(self, engine: Engine, setting: Setting, batch: int) -> None:
        for build in self.models:
            model = build()
            inputs = random_inputs(model, batch, seed=batch)
            expected = reference(model, inputs)
            with engine.open(model, setting) as session:
                got = session.run(inputs)
            assert list(got) == [spec.name for spec in model.signature.outputs]
            for spec in model.signature.outputs:
                assert got[spec.name].dtype == np.dtype(spec.dtype)
                assert got[spec.name].shape == expected[spec.name].shape
                tolerance = 1.01 * self.integer_step.get(spec.name, 1e-5)
                np.testing.assert_allclose(
                    got[spec.name], expected[spec.name], rtol=1e-4, atol=tolerance
                )

    def test_one_session_takes_many_batch_sizes(self, engine: Engine) -> None:
        model = self.models[0]()
        whole = random_inputs(model, 12)
        expected = reference(model, whole)
        with engine.open(model, Setting()) as session:
            # More sizes than an engine may specialise for, and each again afterwards.
            for batch in [*range(1, 13), *range(1, 13)]:
                got = session.run({name: array[:batch] for name, array in whole.items()})
                for name in got:
                    np.testing.assert_allclose(got[name], expected[name][:batch], atol=1e-4)

    def test_results_are_the_callers_to_keep(self, engine: Engine) -> None:
        model = self.models[0]()
        first, second = random_inputs(model, 2, seed=1), random_inputs(model, 2, seed=2)
        with engine.open(model, Setting()) as session:
            kept = session.run(first)
            before = {name: array.copy() for name, array in kept.items()}
            session.run(second)
        for name in kept:
            np.testing.assert_array_equal(kept[name], before[name])
            kept[name][...] = 0  # and to write to

    def test_leaves_its_inputs_alone(self, engine: Engine) -> None:
        model = self.models[0]()
        inputs = random_inputs(model, 2)
        before = {name: array.copy() for name, array in inputs.items()}
        with engine.open(model, Setting()) as session:
            session.run(inputs)
        for name in inputs:
            np.testing.assert_array_equal(inputs[name], before[name])

    def test_takes_any_memory_layout(self, engine: Engine) -> None:
        model = self.models[0]()
        inputs = random_inputs(model, 2)
        with engine.open(model, Setting()) as session:
            expected = session.run(inputs)
            for change in (_fortran, _strided, _readonly):
                got = session.run({name: change(array) for name, array in inputs.items()})
                for name in expected:
                    np.testing.assert_allclose(got[name], expected[name], atol=1e-6)

    def test_streams_run_side_by_side(self, engine: Engine) -> None:
        model = self.models[0]()
        requests = [random_inputs(model, 1 + seed % 3, seed=seed) for seed in range(24)]
        with engine.open(model, Setting(threads=1, streams=3)) as session:
            alone = [session.run(request) for request in requests]
            with ThreadPoolExecutor(3) as pool:
                together = list(pool.map(session.run, requests * 4))
        for position, got in enumerate(together):
            for name, array in alone[position % len(requests)].items():
                np.testing.assert_allclose(got[name], array, atol=1e-5)

    def test_refuses_wrong_inputs(self, engine: Engine) -> None:
        model = self.models[0]()
        (name,) = (spec.name for spec in model.signature.inputs)
        good = random_inputs(model, 1)[name]
        with engine.open(model, Setting()) as session:
            for wrong, said in (
                ({}, f"missing input {name}"),
                ({name: good, "extra": good}, "unknown input 'extra'"),
                ({name: good.astype(np.float64)}, "dtype float32"),
                ({name: good[0]}, "must have shape"),
                ({name: good.tolist()}, "must be a numpy array"),
            ):
                with pytest.raises(Misuse, match=said):
                    session.run(wrong)
            session.run({name: good})

    def test_close_is_idempotent_and_final(self, engine: Engine) -> None:
        model = self.models[0]()
        session: Session = engine.open(model, Setting())
        session.close()
        session.close()
        with pytest.raises(BurnishError, match="closed"):
            session.run(random_inputs(model, 1))

    def test_says_what_it_is(self, engine: Engine) -> None:
        model = self.models[0]()
        with engine.open(model, Setting(2, 1)) as session:
            assert session.signature == model.signature
            assert session.setting == Setting(2, 1)
            assert session.engine == engine.identity
        assert engine.refusals(model) == ()

    def test_an_unknown_operator_is_named(self, engine: Engine) -> None:
        model = unknown_operator()
        (refused,) = engine.refusals(model)
        assert refused.place == "strange_7"
        assert "com.example::Wobble" in refused.reason
        with pytest.raises(Unsupported, match=r"strange_7.*com\.example::Wobble"):
            engine.open(model, Setting())


def _fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def _strided(array: np.ndarray) -> np.ndarray:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _readonly(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
