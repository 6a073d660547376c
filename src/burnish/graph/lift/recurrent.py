# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers: RNN, GRU and LSTM.

x is (length, batch, features), weights (directions, gates · hidden, …). What PyTorch's own
kernels can compute they do, with the gates put in their order; peepholes, clipping, other
activations and sequences of unequal length are computed step by step.

    PyTorch's order of gates       ONNX's
    LSTM  i f g o                  i o f c
    GRU   r z n                    z r h
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.core.errors import Unsupported
from burnish.graph.lift.registry import Run, Site, operator

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "GRU": ("sigmoid", "tanh"),
    "RNN": ("tanh",),
}
_Activation = Callable[[Any], Any]


class Layer:
    """The attributes of a recurrent node."""

    def __init__(self, site: Site) -> None:
        self.kind = site.node.op_type
        self.gates = _GATES[self.kind]
        self.hidden = site.integer("hidden_size", 0)
        direction = site.text("direction", "forward")
        self.backward = direction == "reverse"
        self.count = 2 if direction == "bidirectional" else 1
        self.batch_first = site.flag("layout")
        self.clip = site.real("clip", 0.0)
        self.coupled = site.flag("input_forget")
        self.reset_after = site.flag("linear_before_reset")
        names = site.node.attributes.get("activations")
        given = [one.lower() for one in names.as_strings()] if names else []
        usual = list(_USUAL[self.kind]) * self.count
        self.functions = _functions(site, given or usual)
        self.usual = (not given or given == usual) and not self.clip and not self.coupled
        if self.kind == "GRU":
            self.usual = self.usual and self.reset_after
        self.cell_output = self.kind == "LSTM"

    def own(self, direction: int) -> Sequence[_Activation]:
        """Returns the activations of one direction."""
        each = len(_USUAL[self.kind])
        return self.functions[direction * each : (direction + 1) * each]


def _functions(site: Site, names: Sequence[str]) -> list[_Activation]:
    alphas, betas = list(site.reals("activation_alpha") or []), site.reals("activation_beta") or []
    betas = list(betas)
    made: list[_Activation] = []
    for name in names:
        if name not in _ACTIVATIONS:
            raise Unsupported(f"the activation {name!r} is not known")
        default, function = _ACTIVATIONS[name]
        alpha = (alphas.pop(0) if alphas else default[0]) if len(default) > 0 else 0.0
        beta = (betas.pop(0) if betas else default[1]) if len(default) > 1 else 0.0
        made.append(_bound(function, alpha, beta))
    return made


def _bound(function: Callable[[Any, float, float], Any], alpha: float, beta: float) -> _Activation:
    return lambda x: function(x, alpha, beta)


_ACTIVATIONS: dict[str, tuple[tuple[float, ...], Callable[[Any, float, float], Any]]] = {
    "relu": ((), lambda x, a, b: torch.relu(x)),
    "tanh": ((), lambda x, a, b: torch.tanh(x)),
    "sigmoid": ((), lambda x, a, b: torch.sigmoid(x)),
    "softsign": ((), lambda x, a, b: F.softsign(x)),
    "softplus": ((), lambda x, a, b: F.softplus(x)),
    "affine": ((1.0, 0.0), lambda x, a, b: a * x + b),
    "leakyrelu": ((0.01,), lambda x, a, b: F.leaky_relu(x, a)),
    "thresholdedrelu": ((1.0,), lambda x, a, b: F.threshold(x, a, 0.0)),
    "scaledtanh": ((1.0, 1.0), lambda x, a, b: a * torch.tanh(b * x)),
    "hardsigmoid": ((0.2, 0.5), lambda x, a, b: torch.clamp(a * x + b, 0, 1)),
    "elu": ((1.0,), lambda x, a, b: F.elu(x, a)),
}


@operator("RNN", "GRU", "LSTM")
def recurrent(site: Site) -> Run:
    """RNN, GRU and LSTM in either direction or both."""
    layer = Layer(site)

    def run(
        x: Any,
        w: Any,
        r: Any,
        bias: Any = None,
        lengths: Any = None,
        hidden: Any = None,
        cell: Any = None,
        peepholes: Any = None,
    ) -> Any:
        if layer.batch_first:
            x = x.transpose(0, 1)
            hidden = None if hidden is None else hidden.transpose(0, 1)
            cell = None if cell is None else cell.transpose(0, 1)
        empty = x.new_zeros((layer.count, x.shape[1], r.shape[-1]))
        hidden, cell = (empty if one is None else one for one in (hidden, cell))
        if layer.usual and lengths is None and peepholes is None:
            y, last, cells = _fused(layer, x, w, r, bias, hidden, cell)
        else:
            y, last, cells = _stepped(layer, x, w, r, bias, lengths, hidden, cell, peepholes)
        if layer.batch_first:
            y = y.permute(2, 0, 1, 3)
            last, cells = last.transpose(0, 1), cells.transpose(0, 1)
        return (y, last, cells) if layer.cell_output else (y, last)

    return run


def _ordered(layer: Layer, matrix: Any) -> Any:
    """Returns a direction's weights with the gates in PyTorch's order."""
    parts = matrix.chunk(layer.gates)
    return torch.cat([parts[gate] for gate in _ORDER[layer.kind]]) if layer.gates > 1 else matrix


def _fused(
    layer: Layer, x: Any, w: Any, r: Any, bias: Any, hidden: Any, cell: Any
) -> tuple[Any, Any, Any]:
    flat = []
    for direction in range(layer.count):
        flat += [_ordered(layer, w[direction]), _ordered(layer, r[direction])]
        if bias is not None:
            both = bias[direction].chunk(2)
            flat += [_ordered(layer, both[0]), _ordered(layer, both[1])]
    x = x.flip(0) if layer.backward else x
    setting = (flat, bias is not None, 1, 0.0, False, layer.count == 2, False)
    if layer.kind == "LSTM":
        y, last, cell = torch.lstm(x, (hidden, cell), *setting)
    else:
        y, last = (torch.gru if layer.kind == "GRU" else torch.rnn_tanh)(x, hidden, *setting)
    y = y.unflatten(-1, (layer.count, -1)).transpose(1, 2)
    return (y.flip(0) if layer.backward else y), last, cell


def _stepped(
    layer: Layer,
    x: Any,
    w: Any,
    r: Any,
    bias: Any,
    lengths: Any,
    hidden: Any,
    cell: Any,
    peepholes: Any,
) -> tuple[Any, Any, Any]:
    outputs, lasts, cells = [], [], []
    for direction in range(layer.count):
        here = _Direction(layer, direction, w, r, bias, peepholes)
        backward = layer.backward or direction == 1
        h, c = hidden[direction], cell[direction]
        rows: list[Any] = [None] * len(x)
        steps = reversed(range(len(x))) if backward else range(len(x))
        for t in steps:
            new_h, new_c = here.step(x[t], h, c)
            if lengths is None:
                h, c = new_h, new_c
                rows[t] = h
            else:  # past its end a sequence keeps its state and gives zeros
                alive = (t < lengths)[:, None]
                h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
                rows[t] = torch.where(alive, new_h, torch.zeros_like(new_h))
        outputs.append(torch.stack(rows))
        lasts.append(h)
        cells.append(c)
    return torch.stack(outputs, 1), torch.stack(lasts), torch.stack(cells)


class _Direction:
    """One direction's weights, and what a step does with them."""

    def __init__(
        self, layer: Layer, direction: int, w: Any, r: Any, bias: Any, peepholes: Any
    ) -> None:
        self.layer = layer
        self.w, self.r = w[direction], r[direction]
        size = self.w.shape[0]
        both = w.new_zeros(2 * size) if bias is None else bias[direction]
        self.input_bias, self.state_bias = both[:size], both[size:]
        peephole = None if peepholes is None else peepholes[direction]
        self.peepholes = (0.0, 0.0, 0.0) if peephole is None else peephole.chunk(3)
        self.functions = layer.own(direction)
        self.step = {"LSTM": self.lstm, "GRU": self.gru, "RNN": self.rnn}[layer.kind]

    def clipped(self, x: Any) -> Any:
        return x.clamp(-self.layer.clip, self.layer.clip) if self.layer.clip else x

    def rnn(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        gate = F.linear(x, self.w, self.input_bias) + F.linear(h, self.r, self.state_bias)
        return self.functions[0](self.clipped(gate)), c

    def gru(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        f, g = self.functions
        xz, xr, xh = F.linear(x, self.w, self.input_bias).chunk(3, -1)
        rz, rr, rh = self.r.chunk(3)
        bz, br, bh = self.state_bias.chunk(3)
        z = f(self.clipped(xz + F.linear(h, rz, bz)))
        reset = f(self.clipped(xr + F.linear(h, rr, br)))
        if self.layer.reset_after:
            new = g(self.clipped(xh + reset * F.linear(h, rh, bh)))
        else:
            new = g(self.clipped(xh + F.linear(reset * h, rh, bh)))
        return (1 - z) * new + z * h, c

    def lstm(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        f, g, out = self.functions
        pi, po, pf = self.peepholes
        gates = F.linear(x, self.w, self.input_bias) + F.linear(h, self.r, self.state_bias)
        i, o, forget, new = gates.chunk(4, -1)
        i = f(self.clipped(i + pi * c))
        forget = 1 - i if self.layer.coupled else f(self.clipped(forget + pf * c))
        c = forget * c + i * g(self.clipped(new))
        o = f(self.clipped(o + po * c))
        return o * out(c), c
