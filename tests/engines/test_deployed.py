# SPDX-License-Identifier: Apache-2.0
import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import convolutional, random_inputs

import burnish
from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.engines.deployed import Prediction, open
from burnish.engines.hardware import hardware
from burnish.engines.onnxruntime import OnnxRuntime

CLASSES = [f"class {i}" for i in range(10)]
PREPROCESSING = {
    "inputs": [
        {"input": "image", "kind": "image", "resize": [16, 16], "scale": 1 / 255, "mean": 0.5}
    ]
}


def bundle(path: Path, **manifest: object) -> Path:
    model = convolutional()
    full = {
        "plan": {
            "engine": "onnxruntime",
            "threads": 1,
            "streams": 1,
            "engine_identity": OnnxRuntime().identity,
        },
        "machine": {"fingerprint": hardware().fingerprint},
        "preprocessing": None,
        "classes": CLASSES,
        **manifest,
    }
    return Bundle.write(path, model, model, full, {}).path


def test_runs_tensors_as_the_engine_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inputs = random_inputs(convolutional(), 3)
    with OnnxRuntime().open(convolutional(), Setting()) as plain:
        expected = plain.run(inputs)["logits"]
    with burnish.open(bundle(tmp_path / "b")) as session:
        np.testing.assert_array_equal(session.run(inputs)["logits"], expected)
        assert session.warnings == ()
        with pytest.raises(Misuse, match="missing input"):
            session.run({})
    assert not caplog.records


def test_predicts_images_from_bytes_paths_and_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    (tmp_path / "x.png").write_bytes(encoded.getvalue())
    raws = [encoded.getvalue(), tmp_path / "x.png", str(tmp_path / "x.png"), pixels]
    ready = ((pixels / 255 - 0.5).astype(np.float32)).transpose(2, 0, 1)[None]
    with open(bundle(tmp_path / "b", preprocessing=PREPROCESSING)) as session:
        logits = session.run({"image": np.ascontiguousarray(ready)})["logits"][0]
        softmax = np.exp(logits) / np.exp(logits).sum()
        for prediction in [*session.predict(raws), session.predict(pixels)]:
            assert isinstance(prediction, Prediction)
            np.testing.assert_allclose(prediction.outputs["logits"], logits, atol=1e-5)
            assert prediction.label == CLASSES[int(logits.argmax())]
            assert prediction.score == pytest.approx(softmax.max(), abs=1e-5)
            assert [name for name, _ in prediction.scores] == [
                CLASSES[i] for i in np.argsort(-logits)
            ]
        with pytest.raises(Misuse, match="sample 1: "):
            session.predict([pixels, b"no image"])
        with pytest.raises(Misuse, match="cannot read the sample"):
            session.predict(tmp_path / "none.png")


def test_predicts_many_samples_in_order(tmp_path: Path) -> None:
    images = random_inputs(convolutional(), 70)["image"]
    with open(bundle(tmp_path / "b", classes=[])) as session:
        expected = session.run({"image": images})["logits"]
        got = session.predict(list(images))
        assert session.predict([]) == []
        for given, message in (
            ({"picture": images[0]}, r"expected the inputs \['image'\]"),
            (b"png", "no preprocessing"),
            (images[0].astype(np.float64), "dtype float32"),
        ):
            with pytest.raises(Misuse, match=message):
                session.predict(given)
    assert len(got) == 70
    for one, logits in zip(got, expected, strict=True):
        np.testing.assert_allclose(one.outputs["logits"], logits, atol=1e-5)
        assert one.label is None
        assert one.scores == ()


@pytest.mark.parametrize("name", ["engine_absent", "other_version", "machine"])
def test_says_when_it_is_not_what_was_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"engine": "onnxruntime", "threads": 1, "streams": 1}
    changes: dict[str, dict] = {
        "engine_absent": {"plan": {**plan, "engine": "openvino"}},
        "other_version": {"plan": {**plan, "engine_identity": "onnxruntime 1.0 (cpu)"}},
        "machine": {"machine": {"fingerprint": "000", "cpu_model": "Chip 9", "cores": 64}},
    }
    said = {
        "engine_absent": "planned engine openvino cannot be used, taking onnxruntime",
        "other_version": "measured with onnxruntime 1.0 (cpu), running with",
        "machine": "other hardware (Chip 9, 64 cores)",
    }[name]
    if name == "engine_absent":
        from burnish.engines.openvino import OpenVino

        monkeypatch.setattr(OpenVino, "version", classmethod(lambda cls: None))
    path = bundle(tmp_path / "b", **changes[name])
    with caplog.at_level(logging.WARNING), open(path) as session:
        session.run(random_inputs(convolutional(), 1))
    (warning,) = session.warnings
    assert said in warning
    assert said in caplog.text


def test_a_damaged_plan_is_said(tmp_path: Path) -> None:
    for plan in ({"engine": "onnxruntime"}, {"engine": "onnxruntime", "threads": "x"}, None):
        with pytest.raises(Misuse, match="damaged: its plan"):
            open(bundle(tmp_path / "b", plan=plan))
    with pytest.raises(Misuse, match="unknown engine 'torchx'"):
        open(bundle(tmp_path / "b", plan={"engine": "torchx", "threads": 1, "streams": 1}))
