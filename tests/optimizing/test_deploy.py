# SPDX-License-Identifier: Apache-2.0
"""A bundle holds what was chosen, answers as it did, and describes the data it saw."""

from __future__ import annotations

import json

import digits_net
import numpy as np
import pytest
import small_models

import burnish
from burnish.core.candidate import Setting
from burnish.core.errors import Misuse
from burnish.core.task import Task
from burnish.data.samples import ArraySamples
from burnish.engines.engine import by_name
from burnish.optimizing.reference import reference
from burnish.techniques.fuse import Fuse


@pytest.fixture(scope="module")
def optimized(done):
    return done.first


@pytest.fixture(scope="module")
def bundle(optimized, tmp_path_factory):
    return optimized.save(tmp_path_factory.mktemp("deployed") / "bundle")


def test_the_bundle_answers_as_the_engine_does(optimized, bundle):
    images, _ = digits_net.digits()
    with by_name("onnxruntime").open(optimized.model, optimized.best.setting) as session:
        expected = session.run({"image": images[:40]})["logits"]
    with burnish.open(bundle.path) as session:
        assert session.warnings == ()
        np.testing.assert_array_equal(session.run({"image": images[:40]})["logits"], expected)
        said = session.predict(list(images[:40]))
        one = session.predict(images[7])
    assert [p.label for p in said] == [str(k) for k in expected.argmax(1)]
    assert one.label == said[7].label
    np.testing.assert_allclose(
        np.stack([p.outputs["logits"] for p in said]), expected, rtol=1e-5, atol=1e-5
    )


def test_the_manifest_holds_the_plan_and_what_was_measured(optimized, bundle):
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    best = optimized.best
    plan = manifest["plan"]
    assert plan["engine"] == "onnxruntime"
    assert plan["engine_identity"] == best.engine
    assert (plan["threads"], plan["streams"]) == (best.setting.threads, best.setting.streams)
    assert plan["latency_ms"] == best.measured["latency"].value
    assert {point["batch_size"] for point in plan["latency_by_batch"]} == {1, 8, 32}
    assert manifest["status"] == "met"
    assert manifest["model"]["digest"] == best.model == bundle.model.digest
    assert manifest["original"]["digest"] == optimized.original.digest == bundle.original.digest
    assert manifest["classes"] == list("0123456789")
    assert manifest["metric"] == "top1"
    assert manifest["recipe"] == [dict(step) for step in best.recipe]
    assert set(manifest["measured"]) == set(best.measured)
    report = json.loads((bundle.path / "report.json").read_text())
    assert burnish.Recipe.from_steps(report["best"]["recipe"]).steps()[0] == Fuse()


def test_the_reference_is_what_numpy_says_of_the_data(optimized, bundle):
    images, _ = digits_net.digits()
    images = images[800:1200]
    with by_name("onnxruntime").open(optimized.model, Setting()) as session:
        logits = session.run({"image": images})["logits"]
    found = json.loads((bundle.path / "reference.json").read_text())
    assert (found["split"], found["n"]) == ("validation", 400)
    (pixels,) = found["inputs"]["image"]
    assert (pixels["low"], pixels["high"]) == (images.min(), images.max())
    assert pixels["n"] == images.size
    assert pixels["zeros"] == (images == 0).sum()
    assert sum(pixels["counts"]) == (images != 0).sum()
    # A sixteenth of the range is two of the 32 bins, and pixels are whole sixteenths.
    edges = np.linspace(0, 1, 33)
    expected, _ = np.histogram(images[images != 0] + 1e-4, bins=edges)
    np.testing.assert_array_equal(pixels["counts"][:31], expected[:31])
    assert len(found["outputs"]["logits"]) == 10
    for k, one in enumerate(found["outputs"]["logits"]):
        assert one["low"] == pytest.approx(logits[:, k].min(), rel=1e-5)
        assert one["high"] == pytest.approx(logits[:, k].max(), rel=1e-5)
        assert sum(one["counts"]) + one["zeros"] == one["n"] == 400
    np.testing.assert_array_equal(
        found["answers"]["logits"], np.bincount(logits.argmax(1), minlength=10)
    )
    likely = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence = found["confidence"]["logits"]
    assert confidence["low"] == pytest.approx(likely.max(1).min(), rel=1e-4)
    assert confidence["high"] == pytest.approx(likely.max(1).max(), rel=1e-4)


def test_a_bundle_replaces_a_bundle_and_nothing_else(optimized, bundle, tmp_path):
    place = tmp_path / "place"
    optimized.save(place)
    (place / "old").write_text("of the old one")
    optimized.save(place)
    assert not (place / "old").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["place"]
    other = tmp_path / "letters"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(Misuse, match="is no bundle"):
        optimized.save(other)
    assert (other / "letter.txt").read_text() == "dear"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Misuse, match="is no bundle"):
        optimized.save(file)


def test_a_save_that_fails_leaves_the_old_bundle(optimized, tmp_path, monkeypatch):
    place = tmp_path / "place"
    optimized.save(place)
    before = {one.name: one.read_bytes() for one in place.iterdir()}
    monkeypatch.setattr("burnish.core.bundle.json.dumps", _no_space)
    with pytest.raises(OSError, match="no space"):
        optimized.save(place)
    monkeypatch.undo()
    assert {one.name: one.read_bytes() for one in place.iterdir()} == before
    assert [one.name for one in tmp_path.iterdir()] == ["place"]


def _no_space(*_args, **_more):
    raise OSError("no space left on device")


def test_lengths_that_vary_are_described_as_a_whole(optimized):
    model = small_models.two_inputs()
    rng = np.random.default_rng(0)

    class Texts(ArraySamples):
        def batches(self, batch_size, limit=None):
            for length, batch in zip((3, 9, 5), super().batches(batch_size, limit), strict=False):
                inputs = {name: array[:, :length] for name, array in batch.inputs.items()}
                yield type(batch)(inputs, batch.labels)

    texts = Texts({"ids": rng.integers(0, 20, (48, 9)), "mask": np.ones((48, 9), bool)})
    found = reference(model, optimized.best, Task("texts", validation=texts))
    assert found["n"] == 48
    assert [one["n"] for one in found["inputs"]["ids"]] == [16 * (3 + 9 + 5)]
    assert len(found["outputs"]["pooled"]) == 6
    assert reference(model, optimized.best, Task("none")) is None
