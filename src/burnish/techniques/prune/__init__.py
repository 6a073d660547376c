# SPDX-License-Identifier: Apache-2.0
"""Pruning: taking away weights, channels and blocks, and what they are worth."""
