# SPDX-License-Identifier: Apache-2.0
"""PyTriton: Triton bound to Python functions of this process, one for each worker."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import numpy as np
from ort_engine import OrtEngine, settings
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def bound(engine: OrtEngine, output: str) -> Callable[..., dict[str, np.ndarray]]:
    """Returns the function that answers a batch."""

    @batch
    def infer(**inputs: np.ndarray) -> dict[str, np.ndarray]:
        (rows,) = inputs.values()
        return {output: engine.run_array(rows)}

    return infer


def main() -> None:
    """Serves until it is stopped."""
    asked = settings()
    # Leaving the block below takes Triton and its shared memory along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    config = TritonConfig(
        http_address=asked["host"],
        http_port=asked["port"],
        grpc_address=asked["host"],
        grpc_port=asked["spare_ports"][0],
        allow_metrics=False,
        exit_timeout_secs=5,
    )
    with Triton(config=config, workspace=asked["work"] + "/pytriton") as triton:
        triton.bind(
            model_name=asked["name"],
            infer_func=[bound(OrtEngine(asked), asked["output"]) for _ in range(asked["workers"])],
            inputs=[Tensor(name=asked["input"], dtype=np.float32, shape=tuple(asked["shape"]))],
            outputs=[
                Tensor(name=asked["output"], dtype=np.float32, shape=tuple(asked["output_shape"]))
            ],
            config=ModelConfig(
                max_batch_size=asked["max_batch"],
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(1e3 * asked["wait_ms"])),
            ),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
