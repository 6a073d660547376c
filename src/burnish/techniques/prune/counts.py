# SPDX-License-Identifier: Apache-2.0
"""What a model would cost with narrower groups, without cutting it.

A weight shrinks along each axis by the positions of the channels that go, and the work of
its node with it. Products without weights (attention) count as they are: an upper bound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from burnish.core.model import Model
from burnish.graph.channels import ChannelGroup
from burnish.graph.cost import cost

Count = Literal["channels", "macs", "parameters", "size"]


@dataclass(frozen=True)
class _Weight:
    """A weight's shape, and for each axis the groups along it with positions per channel."""

    shape: tuple[int, ...]
    along: Mapping[int, Mapping[str, float]]

    def elements(self, sizes: Mapping[str, int], widths: Mapping[str, int]) -> float:
        total = 1.0
        for axis, length in enumerate(self.shape):
            gone = sum(
                (sizes[name] - widths[name]) * each
                for name, each in self.along.get(axis, {}).items()
                if name in widths
            )
            total *= length - gone
        return total


class Counts:
    """Costs of one model by the widths of its groups; groups that are not named are whole."""

    def __init__(self, model: Model, groups: Sequence[ChannelGroup]) -> None:
        graph = model.edit().graph
        self._sizes = {group.name: group.size for group in groups}
        along: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for group in groups:
            for one in group.slices:
                each = sum(map(len, one.positions)) / group.size
                along[one.initializer][one.axis][group.name] = each
        weights = {
            name: _Weight(tuple(value.const_value.shape.numpy()), along[name])
            for name, value in graph.initializers.items()
            if value.const_value is not None and name in along
        }
        counted = cost(model)
        # terms[kind]: a weight, and what one of its elements costs.
        self._terms: dict[str, list[tuple[_Weight, float]]] = {
            "parameters": [(one, 1.0) for one in weights.values()],
            "size": [
                (one, graph.initializers[name].const_value.nbytes / _count(one))  # type: ignore[union-attr]
                for name, one in weights.items()
                if _count(one)
            ],
            "macs": [],
        }
        for node in graph:
            macs = counted.macs_by_node.get(str(node.name), 0)
            read = {str(value.name) for value in node.inputs if value is not None}
            own = [weights[name] for name in sorted(read) if name in weights]
            own = [one for one in own if len(one.shape) > 1]
            elements = sum(map(_count, own))
            self._terms["macs"] += [(one, macs / elements) for one in own if macs]
        totals = {
            "parameters": counted.parameters,
            "size": model.size_bytes,
            "macs": counted.macs,
        }
        self._rest = {
            kind: totals[kind] - sum(_count(one) * each for one, each in terms)
            for kind, terms in self._terms.items()
        }

    def of(self, kind: Count, widths: Mapping[str, int]) -> float:
        """Returns the model's cost with these widths."""
        if kind == "channels":
            return float(sum(widths.get(name, size) for name, size in self._sizes.items()))
        terms = self._terms[kind]
        return self._rest[kind] + sum(w.elements(self._sizes, widths) * each for w, each in terms)


def _count(weight: _Weight) -> int:
    total = 1
    for length in weight.shape:
        total *= length
    return total
