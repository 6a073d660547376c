# SPDX-License-Identifier: Apache-2.0
"""Quantizes an ONNX file with NNCF's defaults; runs in the environment of `make bench-env`.

python nncf_quantize.py IN.onnx CALIBRATION.npy INPUT OUT.onnx
"""

import sys

import nncf
import numpy as np
import onnx

source, calibration, name, target = sys.argv[1:]
samples = np.load(calibration, mmap_mode="r", allow_pickle=False)
rows = [{name: np.ascontiguousarray(samples[i : i + 1])} for i in range(len(samples))]
onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(rows)), target)
