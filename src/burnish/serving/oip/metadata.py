# SPDX-License-Identifier: Apache-2.0
"""What a server says about itself and its models: documents for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from burnish.core.errors import Misuse
from burnish.core.model import Signature, TensorSpec
from burnish.serving.oip.datatypes import BYTES, datatype_of

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "parameters",
    "statistics",
)
"""The extensions that this package holds; a server adds those it has besides."""

PLATFORM = "onnx_onnxv1"


def live_document(live: bool) -> dict[str, bool]:
    """Returns the body of the server's live and ready probes."""
    return {"live": live}


def ready_document(name: str, ready: bool) -> dict[str, Any]:
    """Returns the body of a model's ready probe."""
    return {"name": name, "ready": ready}


def server_metadata(version: str, extensions: Sequence[str] = EXTENSIONS) -> dict[str, Any]:
    """Returns the server's name, version and extensions."""
    return {"name": "burnish", "version": version, "extensions": list(extensions)}


def model_metadata(name: str, signature: Signature, versions: Iterable[str] = ()) -> dict[str, Any]:
    """Returns a model's tensors; dimensions that vary are -1; no `versions`, no such key.

    >>> spec = TensorSpec("x", "float32", ("N", 3))
    >>> model_metadata("m", Signature((spec,), ()))["inputs"]
    [{'name': 'x', 'datatype': 'FP32', 'shape': [-1, 3]}]
    """
    listed = list(versions)
    return {
        "name": name,
        **({"versions": listed} if listed else {}),
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
    }


def model_config(
    name: str,
    signature: Signature,
    max_batch_size: int = 0,
    streams: int = 1,
    label_files: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Returns the model's configuration, in the JSON form of the message ModelConfig.

    max_batch_size: 0 for a model that does not batch; else the tensors' first dimension is
    the batch, and is left out of `dims`.
    streams: how many requests or batches run at once.
    label_files: the file with class names, by output.
    """
    labels = dict(label_files)
    config: dict[str, Any] = {
        "name": name,
        "platform": PLATFORM,
        "backend": "burnish",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_batch_size,
        "input": [_config(spec, max_batch_size > 0) for spec in signature.inputs],
        "output": [
            _config(spec, max_batch_size > 0)
            | ({"label_filename": labels[spec.name]} if spec.name in labels else {})
            for spec in signature.outputs
        ],
        "instance_group": [{"name": name, "kind": "KIND_CPU", "count": streams}],
    }
    if max_batch_size > 0:
        config["dynamic_batching"] = {"preferred_batch_size": [max_batch_size]}
    return config


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    datatype = datatype_of(spec.dtype, f"tensor {spec.name!r}")
    return {"name": spec.name, "datatype": datatype, "shape": _dims(spec)}


def _config(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    if batched and (not spec.shape or isinstance(spec.shape[0], int)):
        raise Misuse(f"a model that batches has a first dimension that varies, got {spec}")
    datatype = datatype_of(spec.dtype, f"tensor {spec.name!r}")
    return {
        "name": spec.name,
        "data_type": f"TYPE_{'STRING' if datatype == BYTES else datatype}",
        "dims": _dims(spec)[1 if batched else 0 :],
    }


def _dims(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in spec.shape]
