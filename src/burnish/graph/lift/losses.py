# SPDX-License-Identifier: Apache-2.0
"""Losses that a graph may hold."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Run, Site, operator

_NOTHING = -(2**31)  # a class that no label has


@operator("NegativeLogLikelihoodLoss")
def likelihood(site: Site) -> Run:
    """NegativeLogLikelihoodLoss of log-probabilities (batch, classes, …)."""
    reduction, ignored = site.text("reduction", "mean"), site.integer("ignore_index", _NOTHING)

    def run(x: Any, labels: Any, weight: Any = None) -> Any:
        return F.nll_loss(x, labels.long(), weight, ignore_index=ignored, reduction=reduction)

    return run


@operator("SoftmaxCrossEntropyLoss")
def cross_entropy(site: Site) -> Run:
    """SoftmaxCrossEntropyLoss of logits (batch, classes, …), and their log-probabilities."""
    reduction, ignored = site.text("reduction", "mean"), site.integer("ignore_index", _NOTHING)

    def run(x: Any, labels: Any, weight: Any = None) -> Any:
        logs = F.log_softmax(x, 1)
        loss = F.nll_loss(logs, labels.long(), weight, ignore_index=ignored, reduction=reduction)
        return loss, logs

    return run
