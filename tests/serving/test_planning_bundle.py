# SPDX-License-Identifier: Apache-2.0
"""Planning a bundle end to end: measured, chosen, written, and read by the server."""

import json
import os
import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import convolutional, make, two_inputs

from burnish.core.bundle import Bundle
from burnish.core.candidate import Setting
from burnish.core.errors import Misuse, Unsupported
from burnish.engines.engine import Session
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.machine import machine
from burnish.serving.planning import planner
from burnish.serving.planning.measuring import Opener
from burnish.serving.planning.planner import plan
from burnish.serving.planning.slo import Slo
from burnish.serving.planning.writing import check_writable, write_plan
from burnish.serving.rows import Rows
from burnish.serving.serving_plan import serving_plan

SETTINGS = [Setting(1, 1), Setting(1, 2)]
EXTRA = {"note": "Grüße", "tiny": 1e-300, "large": 2**70, "none": None}


def bundle(path, model=None):
    model = model or convolutional()
    manifest = {
        "plan": {"engine": "onnxruntime", "threads": 1, "streams": 1, "latency_ms": 0.1 + 0.2},
        **EXTRA,
    }
    return Bundle.write(path / "bundle", model, model, manifest, {"report.md": b"# R"})


class Sleeping(Session):
    """One call takes `fixed_s`, and `each_s` more for each sample; streams do not disturb."""

    fixed_s, each_s = 0.008, 0.001

    def __init__(self, setting):
        self.signature, self.setting = convolutional().signature, setting
        self.engine = "sleeping 1 (cpu)"

    def execute(self, inputs):
        time.sleep(self.fixed_s + self.each_s * len(inputs["image"]))
        return {}


class Runtime:
    def __init__(self, session):
        self.session = session

    def open(self, model, setting):
        return self.session(setting)


@pytest.fixture
def sleeping(monkeypatch):
    def use(session):
        monkeypatch.setattr(planner, "by_name", lambda name: Runtime(session))

    return use


def test_a_real_bundle(tmp_path):
    made = bundle(tmp_path)
    before = json.loads((made.path / "manifest.json").read_text())
    others = {
        one.name: one.read_bytes() for one in made.path.iterdir() if one.name != "manifest.json"
    }
    seen = []
    planned = plan(
        made.path, Slo(500.0, 80), 20.0, settings=SETTINGS, budget_s=1.0,
        progress=lambda *one: seen.append(one),
    )  # fmt: skip
    assert json.loads((made.path / "manifest.json").read_text()) == before
    assert {row.setting for row in planned.considered} == set(SETTINGS)
    chosen = planned.chosen
    assert chosen.keeps
    assert chosen.measured_again
    assert planned.up_to_per_s >= chosen.rate_per_s == 20.0
    assert any("network" in note for note in planned.notes)
    assert {work.split()[0] for work, _, _ in seen} == {"opening", "measuring", "simulating"}

    write_plan(made.path, planned)
    after = json.loads((made.path / "manifest.json").read_text())
    serving = after["plan"].pop("serving")
    assert after == before
    assert list(after) == list(before)
    for name, content in others.items():
        assert (made.path / name).read_bytes() == content
    assert {one.name for one in made.path.iterdir()} == {*others, "manifest.json"}
    assert (serving["slo_ms"], serving["percentile"], serving["rate_per_s"]) == (500.0, 80, 20.0)
    assert serving["measured"]["machine"] == machine().fingerprint
    assert serving["measured"]["engine"] == OnnxRuntime().identity
    assert len(serving["considered"]) == len(planned.considered)
    read = serving_plan(Bundle.load(made.path).manifest["plan"])
    assert read.setting == chosen.setting
    assert read.max_batch_size == chosen.max_batch_size
    assert read.slo_ms == 500.0
    assert read.table == chosen.table
    assert read.table[0][0] == 1
    assert read.table[-1][0] == chosen.max_batch_size


def test_batching_is_found_to_pay_where_a_call_costs_little_more(tmp_path, sleeping):
    sleeping(Sleeping)
    planned = plan(bundle(tmp_path).path, Slo(200.0, 80), settings=SETTINGS, budget_s=1.5)
    chosen = planned.chosen
    assert chosen.max_batch_size > 4
    assert planned.up_to_per_s == chosen.rate_per_s
    alone = 1e3 / dict(chosen.table)[1] * chosen.setting.streams
    assert 2 * alone < chosen.rate_per_s <= chosen.capacity_per_s / 0.8
    assert chosen.over.rate_per_s == 1.5 * chosen.rate_per_s
    # What could not come near was not simulated, and says so.
    assert any("at most" in row.passed_over for row in planned.considered)
    assert planned.serving()["measured"]["axes"] == {}


def test_one_at_a_time_over_streams_where_batching_does_not_pay(tmp_path, sleeping):
    class Linear(Sleeping):
        fixed_s, each_s = 0.0, 0.03

    sleeping(Linear)
    planned = plan(bundle(tmp_path).path, Slo(600.0, 80), settings=SETTINGS, budget_s=1.5)
    assert planned.chosen.setting == Setting(1, 2)
    assert planned.chosen.max_batch_size == 1


def test_nothing_keeps_it(tmp_path, sleeping):
    sleeping(Sleeping)
    made = bundle(tmp_path)
    planned = plan(made.path, Slo(1.0), settings=SETTINGS, budget_s=0.3)
    assert planned.chosen is None
    assert planned.up_to_per_s == 0
    assert planned.nearest.alone_ms > 8
    too_much = plan(made.path, Slo(500.0), 1e6, settings=SETTINGS, budget_s=0.3)
    assert too_much.chosen is None
    assert 0 < too_much.up_to_per_s < 1e6
    for one in (planned, too_much):
        json.dumps(one.to_dict(), allow_nan=False)
        with pytest.raises(Misuse, match="no plan to write"):
            write_plan(made.path, one)


def test_settings_that_fail_are_told(tmp_path, sleeping):
    class OneStream(Sleeping):
        def __init__(self, setting):
            super().__init__(setting)
            if setting.streams > 1:
                raise Unsupported("one stream only")

    sleeping(OneStream)
    made = bundle(tmp_path)
    planned = plan(made.path, Slo(500.0, 80), settings=SETTINGS, budget_s=0.3)
    assert planned.failed == ((Setting(1, 2), "one stream only"),)
    assert planned.chosen.setting == Setting(1, 1)
    with pytest.raises(Unsupported, match="ran with none of 1 thread × 2 streams: one stream"):
        plan(made.path, Slo(80.0), settings=[Setting(1, 2)], budget_s=0.3)


def test_all_streams_are_busy(tmp_path, sleeping):
    lock, now, most = threading.Lock(), [0], [0]

    class Counting(Sleeping):
        def execute(self, inputs):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            super().execute(inputs)
            with lock:
                now[0] -= 1

    sleeping(Counting)
    plan(bundle(tmp_path).path, Slo(50.0, 90), settings=[Setting(1, 3)], budget_s=0.3)
    assert most == [3]


def test_free_axes_must_be_said(tmp_path):
    made = bundle(tmp_path, two_inputs())
    for axes, words in (
        ({}, "--axis length=SIZE"),
        ({"sequence": 3}, "no free axis 'sequence'.* length"),
        ({"length": 0}, "at least 1"),
    ):
        with pytest.raises(Misuse, match=words):
            plan(made.path, Slo(50.0), axes=axes, settings=SETTINGS, budget_s=0.2)
    planned = plan(
        made.path, Slo(2e3, 80), 10, axes={"length": 7}, settings=SETTINGS[:1], budget_s=0.2
    )
    assert planned.serving()["measured"]["axes"] == {"length": 7}
    assert any("length=7" in note for note in planned.notes)


def test_inputs_are_ones_for_masks_noise_for_floats_and_zeros_for_the_rest():
    rows = Rows(two_inputs().signature)
    made = Opener(lambda _: None, rows, (("length", 5),)).inputs(3)
    assert made["ids"].shape == made["mask"].shape == (3, 5)
    assert not made["ids"].any()
    assert made["mask"].all()
    image = Opener(lambda _: None, Rows(convolutional().signature), ()).inputs(2)["image"]
    assert image.dtype == np.float32
    assert image.std() == pytest.approx(1, rel=0.1)


def test_a_fixed_batch_is_served_one_request_at_a_call(tmp_path):
    model = make(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        [("x", TensorProto.FLOAT, [4, 3])],
        [("y", TensorProto.FLOAT, [4, 3])],
    )
    planned = plan(
        bundle(tmp_path, model).path, Slo(2e3, 80), 10, settings=SETTINGS[:1], budget_s=0.2
    )
    assert {row.max_batch_size for row in planned.considered} == {1}
    assert any("not free" in note for note in planned.notes)


def test_what_was_replaced_meanwhile_is_not_written_to(tmp_path, sleeping):
    sleeping(Sleeping)
    made = bundle(tmp_path)
    planned = plan(made.path, Slo(2e3, 80), 10, settings=SETTINGS[:1], budget_s=0.2)
    bundle(tmp_path, convolutional(seed=1))
    content = (made.path / "manifest.json").read_bytes()
    with pytest.raises(Misuse, match="replaced by another model"):
        write_plan(made.path, planned)
    assert (made.path / "manifest.json").read_bytes() == content


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path, sleeping, monkeypatch):
    sleeping(Sleeping)
    made = bundle(tmp_path)
    planned = plan(made.path, Slo(2e3, 80), 10, settings=SETTINGS[:1], budget_s=0.2)
    content = (made.path / "manifest.json").read_bytes()

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_plan(made.path, planned)
    assert (made.path / "manifest.json").read_bytes() == content
    assert not [one for one in made.path.iterdir() if one.name.endswith(".tmp")]


def test_wrong_use(tmp_path):
    with pytest.raises(Misuse, match="is no bundle"):
        plan(tmp_path, Slo(50.0))
    with pytest.raises(Misuse, match="is no bundle"):
        check_writable(tmp_path)
    made = bundle(tmp_path)
    check_writable(made.path)
    for more in ({"budget_s": 0.0}, {"rate_per_s": -1.0}):
        with pytest.raises(Misuse, match="above 0"):
            plan(made.path, Slo(50.0), **more)
