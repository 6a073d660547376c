# SPDX-License-Identifier: Apache-2.0
"""The settings are plain data, and all that is wrong with them is said at once."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields

import pytest

from burnish.core.errors import Misuse
from burnish.techniques.distill.distill import Distill
from burnish.techniques.train.fine_tune import FineTune
from burnish.techniques.train.training import Training


def test_the_settings_are_plain_data() -> None:
    assert Training(**json.loads(json.dumps(asdict(Training()))) | {"augment": ()}) == Training()


def test_every_fault_is_in_one_message() -> None:
    with pytest.raises(Misuse) as caught:
        Training(epochs=0, optimizer="adam", augment=("flop",), learning_rate=math.nan)
    words = str(caught.value)
    for expected in ("epochs must", "'adamw'", "'flip'", "learning_rate must"):
        assert expected in words


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 1.5),
        ("batch_size", True),
        ("samples", -1),
        ("learning_rate", 0),
        ("weight_decay", math.inf),
        ("momentum", 1.0),
        ("warmup_ratio", 1),
        ("clip_norm", "1"),
        ("augment", "flip"),
        ("crop_padding", 0),
        ("label_smoothing", 1),
        ("ema_decay", 1.0),
        ("precision", "float16"),
        ("device", "tpu"),
        ("channels_last", 1),
        ("memory_bytes", 0),
        ("hold_out_ratio", 0.6),
        ("patience", -1),
        ("stop_at", math.nan),
        ("hold_zeros", "yes"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: object) -> None:
    nearest = {"augment": "augment must", "precision": "precision", "device": "device"}
    with pytest.raises(Misuse, match=nearest.get(name, f"{name} must")):
        Training(**{name: value})  # type: ignore[arg-type]


def test_stopping_early_needs_samples_to_judge_by() -> None:
    with pytest.raises(Misuse, match="hold_out_ratio"):
        Training(patience=3)
    assert Training(patience=3, hold_out_ratio=0.1).patience == 3


@pytest.mark.parametrize("technique", [FineTune, Distill])
def test_every_technique_that_trains_has_the_fields_and_checks_them(technique: type) -> None:
    assert {one.name for one in fields(Training)} <= {one.name for one in fields(technique)}
    with pytest.raises(Misuse, match="epochs must"):
        technique(epochs=0)


def test_fine_tune_says_what_each_field_means() -> None:
    for one in fields(Training):
        assert f"`{one.name}`" in (FineTune.__doc__ or ""), one.name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("loss", "kl", "loss"),
        ("temperature", 0, "temperature must"),
        ("soft_weight", 1.1, "soft_weight must"),
        ("hints", ("a", "b"), "pairs"),
        ("hint_loss", "l2", "hint_loss"),
        ("teachers", "teacher.onnx", "teachers must"),
        ("others_weight", -1, "others_weight must"),
    ],
)
def test_distill_refuses_a_wrong_value_by_name(field: str, value: object, words: str) -> None:
    with pytest.raises(Misuse, match=words):
        Distill(**{field: value})  # type: ignore[arg-type]
