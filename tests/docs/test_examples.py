# SPDX-License-Identifier: Apache-2.0
"""The example networks are what they say: parameters counted, published accuracies met."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import burnish as bn
from burnish.core.candidate import Setting
from burnish.engines.engine import by_name

torch = pytest.importorskip("torch")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_data = pytest.mark.skipif(
    not os.environ.get("BURNISH_DATA"),
    reason="BURNISH_DATA is not set: it names the folder with the weights and images",
)


def load(file: str) -> Any:
    path = EXAMPLES / file
    spec = importlib.util.spec_from_file_location(f"example_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def n_parameters(network: Any) -> int:
    return sum(one.numel() for one in network.parameters())


def top1(network: Any, task: bn.Task) -> tuple[int, int]:
    """Returns how many the network, as imported, gets right, and of how many."""
    n_right = 0
    validation = task.split("validation")
    example = next(iter(validation.batches(2))).inputs
    model = bn.Model.from_torch(network, example)  # raises where it answers unlike the module
    with by_name("onnxruntime").open(model, Setting()) as session:
        for batch in validation.batches(50):
            (scores,) = session.run(batch.inputs).values()
            n_right += int((scores.argmax(1) == batch.labels).sum())
    return n_right, len(validation)


# The counts are those of torchvision's models of the same names.
@pytest.mark.parametrize(
    ("name", "expected"), [("resnet50", 25_557_032), ("mobilenet_v2", 3_504_872)]
)
def test_the_networks_for_speed_have_the_published_size(name: str, expected: int) -> None:
    network = getattr(load("speed/networks.py"), name)()
    assert n_parameters(network) == expected
    assert not network.training
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    assert torch.isfinite(logits).all()


def test_the_networks_without_weights_have_the_published_size() -> None:
    assert n_parameters(load("cifar10/resnet.py").CifarResNet(56)) == 853_018
    imagenet = load("imagenet/networks.py")
    assert n_parameters(imagenet.GoogLeNet()) == 6_998_552
    assert n_parameters(imagenet.SqueezeNet()) == 1_235_496


def test_without_data_the_example_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BURNISH_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="set BURNISH_DATA"):
        load("cifar10/resnet.py").resnet56()


def test_weights_that_differ_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_DATA", str(tmp_path))
    folder = tmp_path / "imagenet_models"
    folder.mkdir()
    np.savez(folder / "squeezenet1_1.npz", x=np.zeros(1))
    with pytest.raises(ValueError, match="SHA-256 differs"):
        load("imagenet/networks.py").squeezenet()


@needs_data
def test_tasks_calibrate_on_other_images_than_they_judge_on() -> None:
    for file, n_calibration, n_validation in (
        ("cifar10/task.toml", 1024, 1017),
        ("imagenet/googlenet.toml", 300, 500),
        ("imagenet/squeezenet.toml", 300, 500),
    ):
        task = bn.Task.load(EXAMPLES / file)
        assert len(task.split("calibration")) == n_calibration
        assert len(task.split("validation")) == n_validation
        assert task.warnings == ()


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "function", "task", "published"),
    [
        ("cifar10/resnet.py", "resnet56", "cifar10/task.toml", 93.39),
        ("imagenet/networks.py", "googlenet", "imagenet/googlenet.toml", 68.7),
        ("imagenet/networks.py", "squeezenet", "imagenet/squeezenet.toml", 57.5),
    ],
)
def test_the_published_accuracy_is_reproduced(
    file: str, function: str, task: str, published: float
) -> None:
    network = getattr(load(file), function)()
    n_right, n = top1(network, bn.Task.load(EXAMPLES / task))
    share = published / 100
    standard_error = (share * (1 - share) / n) ** 0.5
    assert abs(n_right / n - share) < 3 * standard_error, f"{100 * n_right / n:.2f} % of {n}"
