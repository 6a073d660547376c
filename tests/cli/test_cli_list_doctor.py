# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import fields, replace

import numpy as np
import pytest

from burnish.cli import self_check
from burnish.cli.doctor import int8_here
from burnish.core import catalogue
from burnish.core.errors import Unsupported
from burnish.engines.onnxruntime import OnnxRuntime
from burnish.measuring.machine import machine


def test_list_holds_everything_that_is_registered(burnish):
    found = json.loads(burnish("list", "--json").stdout)
    for group in ("techniques", "engines", "importers"):
        assert [one["name"] for one in found[group]] == catalogue.names(group)
        assert all(one["does"] for one in found[group])
    shown = burnish("list").stdout
    for one in found["techniques"]:
        known = [field.name for field in fields(catalogue.find("techniques", one["name"]))]
        assert [field["name"] for field in one["fields"]] == known
        assert all(name in shown for name in known)


def test_list_goes_on_when_a_plugin_cannot_be_loaded(burnish, monkeypatch):
    find = catalogue.find

    def broken(group, name):
        if name == "fuse":
            raise ImportError("no module named 'gone'")
        return find(group, name)

    monkeypatch.setattr(catalogue, "find", broken)
    result = burnish("list")
    assert result.exit_code == 0
    assert "cannot be loaded: ImportError: no module named 'gone'" in result.stdout
    assert "quantize_static" in result.stdout


def test_int8_is_told_by_instruction_set():
    here = machine()
    assert "8 bits" in int8_here(replace(here, instruction_sets=("avx512_vnni",)))
    assert "7 bits" in int8_here(replace(here, instruction_sets=("avx2",)))


class _Scaled(OnnxRuntime):
    """An engine whose answers are off by a factor for quantized, or for all, models."""

    name = "scaled"
    factor = 1.0
    only_int8 = False

    def open(self, model, setting):
        session = super().open(model, setting)
        int8 = any(node.op_type == "QuantizeLinear" for node in model.edit().graph)
        factor = self.factor if int8 or not self.only_int8 else 1.0
        execute = session.execute
        session.execute = lambda inputs: {k: v * factor for k, v in execute(inputs).items()}
        return session


class _Refusing(OnnxRuntime):
    name = "refusing"

    def open(self, model, setting):
        raise Unsupported("no kernel for Conv")


class _Crashing(OnnxRuntime):
    name = "crashing"

    def open(self, model, setting):
        raise RuntimeError("a library is damaged")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(self_check, "_RACE_S", 0.2)
    monkeypatch.setattr(self_check, "_SIDE", 8)
    monkeypatch.setattr(self_check, "_CHANNELS", 32)

    def use(*engines):
        monkeypatch.setattr(self_check, "installed", lambda: list(engines))

    return use


def _scaled(factor, only_int8):
    engine = _Scaled()
    engine.factor, engine.only_int8 = np.float32(factor), only_int8
    return engine


def test_doctor_passes_a_sound_engine(burnish, quick):
    quick(OnnxRuntime())
    result = burnish("doctor", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    (check,) = found["self_check"]
    assert check["fp32_error_ratio"] < 1e-6
    assert check["int8_error_ratio"] < 0.01
    assert check["speedup"]["value"] > 0
    assert found["machine"]["fingerprint"] == machine().fingerprint
    assert found["faults"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "word"),
    [
        (_scaled(1.1, False), "off ONNX's reference"),
        (_scaled(1.3, True), "int8 is off fp32"),
        (_scaled(np.nan, True), "int8 is off fp32"),
        (_Refusing(), "no kernel for Conv"),
        (_Crashing(), "RuntimeError: a library is damaged"),
    ],
)
def test_doctor_finds_what_is_broken_and_goes_on(burnish, quick, engine, word):
    quick(engine, OnnxRuntime())
    result = burnish("doctor", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [bool(one["fault"]) for one in found["self_check"]] == [True, False]
    assert word in found["self_check"][0]["fault"]
    assert len(found["faults"]) == 1


def test_doctor_finds_a_store_that_cannot_be_written(burnish, quick, monkeypatch, tmp_path):
    from burnish.core.settings import settings

    (tmp_path / "file").touch()
    monkeypatch.setenv("BURNISH_STORE", str(tmp_path / "file" / "store"))
    settings.cache_clear()
    quick(OnnxRuntime())
    try:
        result = burnish("doctor", "-q")
    finally:
        settings.cache_clear()
    assert result.exit_code == 1
    assert "cannot be written" in result.stdout
