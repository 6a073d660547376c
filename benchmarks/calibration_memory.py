# SPDX-License-Identifier: Apache-2.0
"""Prints the peak memory of calibration for growing numbers of samples.

    python benchmarks/calibration_memory.py [--samples 100 1000 10000] [--network mobilenet_v2]

Burnish's QuantizeStatic beside ONNX Runtime's quantize_static with each of its calibrators,
each in a fresh process that quantizes the same network with the same images of noise. A
process that passes --most-gb, or --most-s, is stopped and the table says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import networks
import psutil
from onnxruntime import quantization as ort_quantization

import burnish as bn
from burnish.core.technique import Context

_METHODS = ("Burnish", "MinMax", "Entropy", "Percentile")


def main() -> None:
    """Measures each calibrator, or runs as the child that is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", nargs="+", type=int, default=[100, 1000, 10_000])
    parser.add_argument("--network", choices=networks.RANDOM, default="mobilenet_v2")
    parser.add_argument("--side", type=int, default=224, help="pixels a side of an image")
    parser.add_argument("--most-gb", type=float, default=8.0)
    parser.add_argument("--most-s", type=float, default=1800.0)
    parser.add_argument("--child", nargs=3, metavar=("METHOD", "N", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        method, n, file = options.child
        calibrate(method, networks.Noise(int(n), options.side), Path(file))
        return
    model, _, _ = networks.random(options.network, 2, options.side)
    with tempfile.TemporaryDirectory() as folder:
        file = bn.Fuse().apply(model).model.save(Path(folder) / "fp32.onnx")
        titles = [f"{n} samples" for n in options.samples]
        print(f"Peak resident memory in GB (time), {options.network}, {options.side} pixels:\n")
        print("| calibrator | " + " | ".join(titles) + " |\n|" + "---|" * (1 + len(titles)))
        for method in _METHODS:
            cells = []
            for n in options.samples:
                print(f"{method}, {n} samples", file=sys.stderr, flush=True)
                cells.append(measured(method, n, file, options))
            label = method if method == "Burnish" else f"ONNX Runtime {method}"
            print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def measured(method: str, n: int, file: Path, options: argparse.Namespace) -> str:
    """Returns the peak memory of a child that calibrates on `n` samples, as a table's cell."""
    command = [sys.executable, __file__, "--side", str(options.side)]
    started, peak_bytes = time.monotonic(), 0
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [*command, "--child", method, str(n), file], stdout=subprocess.DEVNULL, stderr=log
        ) as child,
    ):
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak_bytes = max(peak_bytes, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            spent_s = time.monotonic() - started
            over = peak_bytes > options.most_gb * 1e9
            if over or spent_s > options.most_s:
                child.kill()
                why = f"over {options.most_gb:g} GB" if over else f"over {options.most_s:g} s"
                return f"{peak_bytes / 1e9:.2f}, stopped: {why} ({spent_s:.0f} s)"
            time.sleep(0.02)
        if child.wait():
            log.seek(0)
            return f"failed: {log.read().decode().strip().splitlines()[-1]}"
    return f"{peak_bytes / 1e9:.2f} ({time.monotonic() - started:.0f} s)"


def calibrate(method: str, noise: networks.Noise, file: Path) -> None:
    """Quantizes the file's network, calibrated by one method on all images."""
    if method == "Burnish":
        task = bn.Task("noise", calibration=noise)
        bn.QuantizeStatic().apply(bn.Model.load(file), Context(task))
        return
    with tempfile.TemporaryDirectory() as folder:
        ort_quantization.quantize_static(
            file,
            Path(folder) / "int8.onnx",
            Reader(noise),
            calibrate_method=ort_quantization.CalibrationMethod[method],
        )


class Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]
    """The images one by one, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, noise: networks.Noise) -> None:
        self._batches = noise.batches(1)

    def get_next(self) -> dict[str, object] | None:
        """Returns the next image, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.inputs)


if __name__ == "__main__":
    main()
