# SPDX-License-Identifier: Apache-2.0
import errno
import json
import os

import pytest

from burnish.cli.self_check import network

TASK = """
name = "t"
metric = "top1"
[preprocess]
input = "image"
kind = "array"
[validation]
source = "npz"
path = "v.npz"
inputs = "x"
labels = "y"
"""


def refused(result, *words, code=2, lines=1):
    """Checks that a command failed with one clear paragraph on standard error alone."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    # Usage errors are typer's, in a box; ours are one line.
    if "Usage:" not in result.stderr:
        assert result.stderr.startswith("burnish: ")
        assert result.stderr.count("\n") == lines, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def net(tmp_path):
    import numpy as np

    (tmp_path / "net.onnx").write_bytes(network(np.random.default_rng(0)))
    return "net.onnx"


@pytest.mark.parametrize("verb", ["optimize", "measure"])
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_missing_model_names_the_nearest(burnish, net, verb, extra):
    more = ["--max-drop", "none"] if verb == "optimize" else []
    refused(burnish(verb, "nett.onnx", *more, *extra), "nett.onnx", "did you mean 'net.onnx'?")


def test_empty_model_file(burnish, tmp_path):
    (tmp_path / "empty.onnx").touch()
    refused(burnish("measure", "empty.onnx"), "empty.onnx")


def test_truncated_model_file(burnish, net, tmp_path):
    content = (tmp_path / net).read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    refused(burnish("measure", "half.onnx"), "half.onnx")


def test_weights_are_no_model(burnish, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"\x80\x02")
    refused(burnish("measure", "net.pt"), "net.pt", "file.py:function")


@pytest.mark.parametrize("name", ["net.txt", "net", "net.py"])
def test_wrong_suffix(burnish, tmp_path, name):
    (tmp_path / name).write_text("x = 1\n")
    refused(burnish("measure", name), name, "file.py:function" if name != "net.py" else "net.py:")


def test_folder_that_is_no_bundle(burnish, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(burnish("measure", "folder"), "folder is no bundle")


def test_missing_task(burnish, net):
    refused(burnish("optimize", net, "--task", "no.toml"), "no.toml")


def test_task_faults_are_listed_at_once(burnish, net, tmp_path):
    (tmp_path / "t.toml").write_text(TASK.replace("metric", "metrik"))
    refused(burnish("optimize", net, "-t", "t.toml"), "metrik", "v.npz", lines=3)


def test_unknown_engine_names_the_nearest(burnish, net):
    refused(burnish("measure", net, "--engine", "opnvino"), "did you mean 'openvino'?")


def test_unknown_variant_of_an_engine_names_the_nearest(burnish, net):
    pytest.importorskip("torch")
    refused(burnish("measure", net, "--engine", "torch:compile"), "did you mean 'compiled'?")


def test_engine_that_is_not_installed_names_the_command(burnish, net, monkeypatch):
    from burnish.engines.openvino import OpenVino

    monkeypatch.setattr(OpenVino, "version", classmethod(lambda cls: None))
    refused(burnish("measure", net, "--engine", "openvino"), "pip install 'burnish[openvino]'")
    listed = json.loads(burnish("list", "--json").stdout)["engines"]
    (found,) = [one for one in listed if one["name"] == "openvino"]
    assert found["version"] is None
    assert found["install"] == "pip install 'burnish[openvino]'"
    assert "pip install 'burnish[openvino]'" in burnish("list").stdout


def test_all_wrong_options_are_said_at_once(burnish, net):
    result = burnish(
        "optimize", net, "--max-drop", "2x", "--max-latency", "4", "--max-size", "9e999GB",
        "--max-memory", "5%", "--min-throughput", "fast", "--objective", "latancy",
    )  # fmt: skip
    refused(
        result, "--max-drop", "--max-latency", "--max-size", "too large", "--max-memory",
        "--min-throughput", "did you mean 'latency'?",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["-1", "1e3", "99999999999999999999999"])
def test_seed_out_of_range(burnish, net, value):
    refused(burnish("measure", net, f"--seed={value}"), "--seed")


@pytest.mark.parametrize("value", ["soon", "0s", "-5s", "9" * 400 + "h"])
def test_budget_that_is_none(burnish, net, value):
    refused(burnish("measure", net, f"--budget={value}"), "duration")


def test_a_drop_needs_a_task(burnish, net):
    refused(burnish("optimize", net), "--task", "--max-drop none")


def test_unknown_option_is_usage(burnish, net):
    refused(burnish("optimize", net, "--max-latncy", "4ms"), "--max-latency")


def test_compare_needs_two(burnish, net):
    refused(burnish("compare", net), "two models")


def test_fresh_and_store_exclude_each_other(burnish, net):
    refused(burnish("optimize", net, "--max-drop=none", "--fresh", "--store", "s"), "--fresh")


def test_missing_recipe(burnish, net):
    refused(burnish("optimize", net, "--max-drop=none", "--recipe", "no.toml"), "no.toml")


def test_output_that_is_no_bundle_is_refused_before_the_work(burnish, net, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(burnish("optimize", net, "--max-drop=none", "-o", "out"), "is no bundle")
    refused(burnish("optimize", net, "--max-drop=none", "-o", f"{net}/b"), "no folder")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def _raising(error):
    def read(*args, **kwargs):
        raise error

    return read


def test_our_own_fault_exits_1_and_says_how_to_see_it(burnish, net, monkeypatch):
    from burnish.core.model import Model

    monkeypatch.setattr(Model, "load", staticmethod(_raising(ValueError("a\nb"))))
    refused(burnish("measure", net), "a fault in Burnish", "ValueError: a b", "--debug", code=1)
    shown = burnish("--debug", "measure", net)
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr


def test_a_full_disk_is_no_fault_of_ours(burnish, net, monkeypatch):
    from burnish.core.model import Model

    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    monkeypatch.setattr(Model, "load", staticmethod(_raising(error)))
    refused(burnish("measure", net), "No space left", "/data/x")


@pytest.mark.parametrize(
    ("args", "word"), [(["measure"], "interrupted"), (["optimize", "--max-drop=none"], "are kept")]
)
def test_interrupted_exits_130(burnish, net, monkeypatch, tmp_path, args, word):
    from burnish.core.model import Model

    monkeypatch.setattr(Model, "load", staticmethod(_raising(KeyboardInterrupt())))
    verb, *more = args
    where = ["--store", tmp_path / "s"] if verb == "optimize" else []
    result = burnish(verb, net, *more, *where)
    assert result.exit_code == 130
    assert word in result.stderr
    assert result.stdout == ""


def test_control_characters_in_a_name_do_not_reach_the_terminal(burnish):
    refused(burnish("measure", "\x1b[31mred.onnx"), "red.onnx")
    assert "\x1b" not in burnish("measure", "\x1b[31mred.onnx").stderr
