# SPDX-License-Identifier: Apache-2.0
"""What a request says beside its tensors, whatever it came by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from burnish.serving.oip.faults import Fault, shown
from burnish.serving.served_model import Answer, ServedModel


def labels_of(answer: Answer, served: ServedModel) -> dict[str, tuple[str, ...]]:
    """Returns the class names of the outputs that score them."""
    n = len(served.labels)
    return {
        name: served.labels
        for name, array in answer.outputs.items()
        if n and array.ndim and array.shape[-1] == n
    }


def asked(parameters: Mapping[str, Any]) -> tuple[float, int]:
    """Returns the timeout in milliseconds, and the priority, of a request's parameters.

    "timeout" is in microseconds, 0 for none, and a lower "priority" is answered first, as
    Triton has them.
    """
    timeout = parameters.get("timeout", 0)
    priority = parameters.get("priority", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise Fault(f"timeout: expected whole microseconds of 0 or more, got {shown(timeout)}")
    if isinstance(priority, bool) or not isinstance(priority, int) or priority < 0:
        raise Fault(f"priority: expected a whole number of 0 or more, got {shown(priority)}")
    return timeout / 1e3 if timeout else math.inf, priority
