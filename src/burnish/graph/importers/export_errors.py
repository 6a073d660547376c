# SPDX-License-Identifier: Apache-2.0
"""What a failed export means, in a sentence instead of the exporter's trace."""

from __future__ import annotations

import re
from collections.abc import Iterator

_HINTS = (
    (
        r"data-dependent|GuardOnDataDependent|Could not guard|could not extract specialized",
        "its control flow depends on values; replace Python `if`, loops and `.item()` on "
        "tensors by torch.where or torch.cond, or export the part of the network before them",
    ),
    (
        r"No ONNX function found|No decompositions registered|Unsupported FX nodes",
        "it uses an operator without an ONNX form; write that step with standard PyTorch operators",
    ),
    (
        r"Could not convert|ScriptModule",
        "give the plain nn.Module, neither scripted nor compiled",
    ),
)


def explain(error: BaseException) -> str:
    """Returns the first cause, and what can be done about it where that is known."""
    first = reason(error)
    everything = " ".join(str(one) for one in _chain(error))
    for pattern, hint in _HINTS:
        if re.search(pattern, everything):
            return f"{first}; {hint}"
    return first


def reason(error: BaseException) -> str:
    """Returns the first cause of an error in one line."""
    cause = list(_chain(error))[-1]
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0][:300] if lines else "") or type(cause).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
