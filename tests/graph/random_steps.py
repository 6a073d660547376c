# SPDX-License-Identifier: Apache-2.0
"""One step of a random network: operators that channels are followed through.

Each takes a network and the name of a tensor in it, and returns the name of a new one.
"""

from __future__ import annotations

import numpy as np
from network_builder import Network, Shape

# Steps on maps


def convolve(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    groups = n.pick(*(one for one in (1, 1, 2, 4, c) if c % one == 0))
    out = groups * n.pick(1, 2, 3) if groups > 1 else int(n.rng.integers(2, 9))
    kernel, stride = n.pick(1, 3), n.pick(1, 2) if h > 2 else 1
    inputs = [x, n.weight(out, c // groups, kernel, kernel)]
    inputs += [n.weight(out)] if n.pick(True, False) else []
    h, w = ((one + 2 * (kernel // 2) - kernel) // stride + 1 for one in (h, w))
    pads = [kernel // 2] * 4
    return n.one("Conv", inputs, (out, h, w), group=groups, pads=pads, strides=[stride] * 2)


def convolve_up(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    groups = n.pick(*(one for one in (1, 2, c) if c % one == 0))
    out = n.pick(1, 2, 3)
    if groups == 1:
        out += 2
    if h > 8:
        return x
    weights = [x, n.weight(c, out, 2, 2), n.weight(out * groups)]
    return n.one(
        "ConvTranspose", weights, (out * groups, 2 * h, 2 * w), group=groups, strides=[2, 2]
    )


def quantized_convolve(n: Network, x: str) -> str:
    """A convolution with int8 weights for each channel, and a quantized input if it is early.

    Later, sums in another order might be rounded to another step.
    """
    c, h, w = n.shapes[x]
    out = int(n.rng.integers(2, 9))
    if x in ("image", "v0_0"):
        scale, zero = n.constant(np.float32(0.05)), n.constant(np.uint8(120))
        rounded = n.one("QuantizeLinear", [x, scale, zero], (c, h, w))
        x = n.one("DequantizeLinear", [rounded, scale, zero], (c, h, w))
        n.hide(rounded)
    numbers = n.constant(n.rng.integers(-100, 100, (out, c, 3, 3)).astype(np.int8))
    scales = n.constant(n.rng.uniform(0.001, 0.01, out).astype(np.float32))
    points = n.constant(n.rng.integers(-3, 4, out).astype(np.int8))
    weights = n.node("DequantizeLinear", [numbers, scales, points], (out, c, 3, 3), axis=0)[0]
    n.hide(weights)
    return n.one("Conv", [x, weights, n.weight(out)], (out, h, w), pads=[1] * 4)


def batch_norm(n: Network, x: str) -> str:
    c = n.shapes[x][0]
    numbers = [n.weight(c, low=0.5), n.weight(c), n.weight(c), n.weight(c, low=0.5)]
    return n.one("BatchNormalization", [x, *numbers], n.shapes[x])


def activate(n: Network, x: str) -> str:
    if n.pick(True, False, False):
        slope = n.weight(*n.pick((n.shapes[x][0], *[1] * (len(n.shapes[x]) - 1)), (1,)), low=0)
        return n.one("PRelu", [x, slope], n.shapes[x])
    if n.pick(True, False, False):
        bounds = [n.constant(np.float32(-1)), n.constant(np.float32(2))]
        return n.one("Clip", [x, *bounds], n.shapes[x])
    kind = n.pick(
        "Relu", "Sigmoid", "HardSwish", "Tanh", "LeakyRelu", "Softplus", "Identity", "Cos"
    )
    return n.one(kind, [x], n.shapes[x])


def scale(n: Network, x: str) -> str:
    """A constant of any shape that broadcasts, on either side."""
    shape = n.shapes[x]
    by = tuple(n.pick(size, 1) for size in shape)[n.pick(0, 0, len(shape) - 1) :]
    by = n.pick(by, (1, *by)) if len(by) == len(shape) else by
    operands = [x, n.weight(*by, low=0.5)]
    if n.pick(True, False):
        operands.reverse()
    return n.one(n.pick("Mul", "Add", "Sub", "Max"), operands, shape)


def combine(n: Network, x: str) -> str:
    """A sum, product or choice of two tensors of one shape."""
    others = [one for one, shape in n.shapes.items() if shape == n.shapes[x]]
    if n.pick(True, False, False):
        mask = n.one("Greater", [x, n.constant(np.float32(0))], n.shapes[x])
        y = n.one("Where", [mask, x, n.pick(*others)], n.shapes[x])
        n.hide(mask)
        return y
    return n.one(n.pick("Add", "Add", "Mul", "Sub", "Min"), [x, n.pick(*others)], n.shapes[x])


def join(n: Network, x: str) -> str:
    shape = n.shapes[x]
    axis = 1 if len(shape) == 3 else len(shape)
    fits = [
        one
        for one, other in n.shapes.items()
        if len(other) == len(shape)
        and all(a == b for i, (a, b) in enumerate(zip(shape, other, strict=True), 1) if i != axis)
        and other[axis - 1] + shape[axis - 1] < 40
    ]
    if not fits:
        return x
    other = n.pick(*fits)
    joined = list(shape)
    joined[axis - 1] += n.shapes[other][axis - 1]
    return n.one("Concat", [x, other], tuple(joined), axis=n.pick(axis, axis - len(shape) - 1))


def part(n: Network, x: str) -> str:
    shape = n.shapes[x]
    axis = 1 if len(shape) == 3 else len(shape)
    size = shape[axis - 1]
    if size < 4:
        return x
    first = int(n.rng.integers(1, size))

    def sized(count: int) -> Shape:
        return (*shape[: axis - 1], count, *shape[axis:])

    kind = n.pick("Split", "even", "Slice", "Gather", "stride")
    if kind == "Split":
        return n.node(
            "Split", [x, n.ints(first, size - first)], sized(first), sized(size - first), axis=axis
        )[1]
    if kind == "even":
        half = -(-size // 2)
        parts = n.node("Split", [x], sized(half), sized(size - half), axis=axis, num_outputs=2)
        if size % 2 == 0 and n.pick(True, False):
            return n.one("Mul", parts, sized(half))
        return parts[0]
    if kind == "Slice":
        end = n.pick(size, 2**62, int(n.rng.integers(first, size)) + 1)
        count = min(end, size) - first + 1
        return n.one("Slice", [x, n.ints(first - 1), n.ints(end), n.ints(axis)], sized(count))
    if kind == "stride":
        bounds = [n.ints(0), n.ints(2**62), n.ints(axis), n.ints(2)]
        return n.one("Slice", [x, *bounds], sized(-(-size // 2)))
    places = n.rng.integers(-size, size, first)
    return n.one("Gather", [x, n.constant(places)], sized(first), axis=axis)


def pad_channels(n: Network, x: str) -> str:
    shape = n.shapes[x]
    before, after = (int(one) for one in n.rng.integers(0, 4, 2))
    if n.pick(True, False):
        pads = [n.ints(before, after), "", n.ints(1)]
    else:
        rest = [0] * (len(shape) - 1)
        pads = [n.ints(0, before, *rest, 0, after, *rest), n.constant(np.float32(0.3))]
    return n.one("Pad", [x, *pads], (shape[0] + before + after, *shape[1:]))


def excite(n: Network, x: str) -> str:
    c, _, _ = n.shapes[x]
    if n.pick(True, False):
        y = n.one("GlobalAveragePool", [x], (c, 1, 1))
    else:
        y = n.one("ReduceMean", [x, n.ints(-1, -2)], (c, 1, 1), keepdims=1)
    y = n.one("Conv", [y, n.weight(3, c, 1, 1), n.weight(3)], (3, 1, 1))
    y = n.one("Conv", [n.one("Relu", [y], (3, 1, 1)), n.weight(c, 3, 1, 1)], (c, 1, 1))
    return n.one("Mul", [x, n.one("Sigmoid", [y], (c, 1, 1))], n.shapes[x])


def attend_places(n: Network, x: str) -> str:
    """One map of weights for all channels."""
    c, h, w = n.shapes[x]
    y = n.one("Conv", [x, n.weight(1, c, 1, 1)], (1, h, w))
    return n.one("Mul", [n.one("Sigmoid", [y], (1, h, w)), x], n.shapes[x])


def normalize(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    kind = n.pick("Instance", "Group", "Layer", "Softmax", "LRN", "reshaped")
    if kind == "Instance":
        return n.one("InstanceNormalization", [x, n.weight(c), n.weight(c)], n.shapes[x])
    groups = n.pick(*(one for one in (1, 2, 3, 4) if c % one == 0))
    if kind == "Group":
        numbers = [n.weight(c), n.weight(c)]
        return n.one("GroupNormalization", [x, *numbers], n.shapes[x], num_groups=groups)
    if kind == "Softmax":
        return n.one("Softmax", [x], n.shapes[x], axis=n.pick(1, 2, -1))
    if kind == "LRN":
        return n.one("LRN", [x], n.shapes[x], size=3)
    if kind == "Layer":
        y = n.one("Transpose", [x], (h, w, c), perm=[0, 2, 3, 1])
        y = n.one("LayerNormalization", [y, n.weight(c), n.weight(c)], (h, w, c))
        return n.one("Transpose", [y], n.shapes[x], perm=[0, 3, 1, 2])
    y = n.one("Reshape", [x, n.ints(0, groups, -1)], (groups, c // groups * h * w))
    numbers = [n.weight(groups), n.weight(groups)]
    y = n.one("InstanceNormalization", [y, *numbers], n.shapes[y])
    return n.one("Reshape", [y, n.ints(-1, c, h, w)], n.shapes[x])


def shuffle(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    groups = n.pick(*(one for one in (1, 2, 3, 4) if c % one == 0))
    y = n.one("Reshape", [x, n.ints(-1, groups, c // groups, h, w)], (groups, c // groups, h, w))
    y = n.one("Transpose", [y], (c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    return n.one("Reshape", [y, n.ints(0, c, h, w)], n.shapes[x])


def pool(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    if h < 2:
        return x
    kind = n.pick("MaxPool", "AveragePool", "Resize", "depth", "space")
    if kind == "Resize":
        scales = n.constant(np.asarray([1, 1, 0.5, 0.5], np.float32))
        if n.pick(True, False) or h % 2:
            sizes = n.ints(c, h, w) if n.pick(True, False) else n.ints(c, h - 1, w)
            shape = tuple(int(one) for one in n.weights[sizes])
            return n.one("Resize", [x, "", "", sizes], shape, axes=[1, 2, 3])
        return n.one("Resize", [x, "", scales], (c, h // 2, w // 2))
    if kind == "depth" and c % 4 == 0 and h < 8:
        mode = n.pick("DCR", "CRD")
        return n.one("DepthToSpace", [x], (c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)
    if kind == "space" and h % 2 == 0 and c < 6:
        return n.one("SpaceToDepth", [x], (4 * c, h // 2, w // 2), blocksize=2)
    kind = n.pick("MaxPool", "AveragePool")
    shape = (c, (h - 2) // 2 + 1, (w - 2) // 2 + 1)
    return n.one(kind, [x], shape, kernel_shape=[2, 2], strides=[2, 2])


def to_vector(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    kind = n.pick("mean", "Flatten", "Reshape", "squeeze", "max")
    if kind == "mean":
        return n.one("ReduceMean", [x, n.ints(2, 3)], (c,), keepdims=0)
    if kind == "max":
        return n.one("ReduceMax", [x, n.ints(-1, -2)], (c,), keepdims=0)
    if kind == "squeeze":
        y = n.one("GlobalMaxPool", [x], (c, 1, 1))
        return n.one("Squeeze", [y, n.ints(2, 3)], (c,))
    if c * h * w > 300:
        x, h, w = n.one("GlobalAveragePool", [x], (c, 1, 1)), 1, 1
    if kind == "Flatten":
        return n.one("Flatten", [x], (c * h * w,), axis=1)
    return n.one("Reshape", [x, n.pick(n.ints(-1, c * h * w), n.ints(0, -1))], (c * h * w,))


def to_sequence(n: Network, x: str) -> str:
    c, h, w = n.shapes[x]
    y = n.one("Reshape", [x, n.ints(0, c, -1)], (c, h * w))
    return n.one("Transpose", [y], (h * w, c), perm=[0, 2, 1])


# Steps on vectors and sequences


def gemm(n: Network, x: str) -> str:
    (c,) = n.shapes[x]
    out, by_row = int(n.rng.integers(2, 9)), n.pick(0, 1)
    inputs = [x, n.weight(out, c) if by_row else n.weight(c, out)]
    shape = n.pick(None, (out,), (1, out), (1,))
    inputs += [n.weight(*shape)] if shape else []
    return n.one("Gemm", inputs, (out,), transB=by_row, alpha=n.pick(1.0, 0.5))


def matmul(n: Network, x: str) -> str:
    c, out = n.shapes[x][-1], int(n.rng.integers(2, 13))
    y = n.one("MatMul", [x, n.weight(c, out)], (*n.shapes[x][:-1], out))
    return n.one("Add", [y, n.weight(out)], n.shapes[y]) if n.pick(True, False) else y


def mix_tokens(n: Network, x: str) -> str:
    length, width = n.shapes[x]
    out = int(n.rng.integers(2, 7))
    return n.one("MatMul", [n.weight(out, length), x], (out, width))


def attend(n: Network, x: str) -> str:
    length, _ = n.shapes[x]
    heads, size = n.pick(2, 3, 4), n.pick(1, 2, 4)
    width = heads * size
    if n.pick(True, False):
        wide = n.one("MatMul", [x, n.weight(n.shapes[x][-1], 3 * width)], (length, 3 * width))
        y = n.one("Reshape", [wide, n.ints(0, length, 3, heads, size)], (length, 3, heads, size))
        y = n.one("Transpose", [y], (3, heads, length, size), perm=[2, 0, 3, 1, 4])
        n.hide(y)
        q, k, v = (
            n.one("Gather", [y, n.constant(np.int64(place))], (heads, length, size), axis=0)
            for place in range(3)
        )
    else:
        q, k, v = (_heads(n, x, heads, size) for _ in range(3))
    k = n.one("Transpose", [k], (heads, size, length), perm=[0, 1, 3, 2])
    weights = n.one("MatMul", [q, k], (heads, length, length))
    weights = n.one("Softmax", [weights], n.shapes[weights], axis=-1)
    y = n.one("MatMul", [weights, v], (heads, length, size))
    y = n.one("Transpose", [y], (length, heads, size), perm=[0, 2, 1, 3])
    y = n.one("Reshape", [y, n.ints(0, 0, width)], (length, width))
    out = n.shapes[x][-1]
    return n.one("MatMul", [y, n.weight(width, out)], (length, out))


def _heads(n: Network, x: str, heads: int, size: int) -> str:
    length, width = n.shapes[x]
    y = n.one("MatMul", [x, n.weight(width, heads * size)], (length, heads * size))
    y = n.one("Reshape", [y, n.ints(-1, length, heads, size)], (length, heads, size))
    return n.one("Transpose", [y], (heads, length, size), perm=[0, 2, 1, 3])


def layer_norm(n: Network, x: str) -> str:
    width = n.shapes[x][-1]
    return n.one("LayerNormalization", [x, n.weight(width), n.weight(width)], n.shapes[x])


def flatten_tokens(n: Network, x: str) -> str:
    """One row for each token, a product, and back."""
    length, width = n.shapes[x]
    y = n.one("Reshape", [x, n.ints(-1, width)], (width,))
    z = n.one("Gemm", [y, n.weight(width, 6), n.weight(6)], (6,))
    x = n.one("Reshape", [z, n.ints(-1, length, 6)], (length, 6))
    n.hide(y, z)
    return x


def to_pooled(n: Network, x: str) -> str:
    _, width = n.shapes[x]
    if n.pick(True, False):
        return n.one("ReduceSum", [x, n.ints(1)], (width,), keepdims=0)
    return n.one("Gather", [x, n.constant(np.int64(n.pick(0, -1)))], (width,), axis=1)


def squeeze(n: Network, x: str) -> str:
    y = n.one("Unsqueeze", [x, n.ints(1, -1)], (1, *n.shapes[x], 1))
    if n.pick(True, False):
        size = n.shapes[x]
        y = n.one("Expand", [y, n.ints(1, 2, *[1] * len(size), 1)], (2, *size, 1))
        y = n.one("ReduceMean", [y, n.ints(1)], (1, *size, 1), keepdims=1)
    return n.one("Squeeze", [y, n.ints(1, -1)], n.shapes[x])


def repeat(n: Network, x: str) -> str:
    shape = n.shapes[x]
    if shape[0] > 10:
        return x
    repeats = n.ints(1, 2, *[1] * (len(shape) - 1))
    return n.one("Tile", [x, repeats], (2 * shape[0], *shape[1:]))


ANY = (activate, scale, combine, combine, join, join, part, squeeze, repeat)
MAPS = (
    (convolve,) * 5
    + (
        batch_norm,
        batch_norm,
        excite,
        normalize,
        normalize,
        normalize,
        shuffle,
        pool,
        pad_channels,
        attend_places,
    )
    + (quantized_convolve, convolve_up, to_vector, to_sequence)
)
VECTORS = (gemm, gemm, matmul, batch_norm, layer_norm, pad_channels)
SEQUENCES = (matmul, matmul, attend, attend, layer_norm, mix_tokens, flatten_tokens, to_pooled)
