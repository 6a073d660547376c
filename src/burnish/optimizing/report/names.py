# SPDX-License-Identifier: Apache-2.0
"""Names as text that is safe to show: users, files and models choose them freely."""

from __future__ import annotations

import unicodedata

from burnish.core.candidate import Candidate
from burnish.optimizing.result import Result

_ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "PyTorch"}
_METRICS = {
    "top1": "top-1", "top5": "top-5", "f1": "F1", "auc": "AUC", "mse": "MSE", "mae": "MAE",
    "miou": "mean IoU", "mean_iou": "mean IoU",
}  # fmt: skip
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def printable(text: object, newline: bool = False) -> str:
    """Returns the text without control characters, so that no name can restyle a terminal
    or turn the line's direction; line breaks stay when `newline` says so.

    >>> printable("net\\x1b[31m\\u202egnp.onnx")
    'net�[31m�gnp.onnx'
    """
    return "".join(
        one
        if (newline and one == "\n") or unicodedata.category(one) not in _HIDDEN
        else " "
        if one in "\n\t"
        else "�"
        for one in str(text)
    )


def shorten(text: str, length: int) -> str:
    """Returns the text, its middle cut out when it is longer than `length` characters.

    Both ends stay, since names of one run often differ only there.

    >>> shorten("int8 percentile, per channel", 16)
    'int8 per…channel'
    """
    if len(text) <= length:
        return text
    head = length // 2
    return text[:head].rstrip() + "…" + text[len(text) - (length - head - 1) :].lstrip()


def engine(one: Candidate) -> str:
    """Returns the engine's usual name and its variant, without version.

    "torch:cuda 2.13.0 (cuda, eager, float32)" is "PyTorch cuda".
    """
    name, *words = one.engine.split(" ", 1)[0].split(":")
    known = _ENGINES.get(name, printable(name) or "unknown engine")
    return " ".join([known, *map(printable, words)])


def setting(one: Candidate) -> str:
    """Returns the engine with threads and streams."""
    return f"{engine(one)}, {one.setting}"


def metric(result: Result) -> str:
    """Returns the name of the Task's metric.

    It is the condition "metric" of the measurement, or else the measurement's quantity.
    """
    for one in (result.best, result.fp32, *result.candidates, *result.baselines):
        if "metric" in one.measured:
            measured = one.measured["metric"]
            name = str(measured.conditions.get("metric") or measured.quantity)
            if name and name != "metric":
                return _METRICS.get(name, printable(name).replace("_", " "))
    return "accuracy"
