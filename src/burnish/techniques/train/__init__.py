# SPDX-License-Identifier: Apache-2.0
"""Training a model's weights: the one loop, and the techniques that are only it."""
