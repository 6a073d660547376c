# SPDX-License-Identifier: Apache-2.0
"""Quantization: arithmetic (`grid`), calibration (`observe`, `ranges`), and the techniques."""
