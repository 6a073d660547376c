# SPDX-License-Identifier: Apache-2.0
"""Products of matrices and tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.registry import Run, Site, floats, operator


@operator("MatMul")
def matrix_product(site: Site) -> Run:
    """MatMul, as in numpy."""
    return lambda a, b: torch.matmul(a, b)


@operator("Gemm")
def gemm(site: Site) -> Run:
    """Gemm: alpha · A' · B' + beta · C, where ' may transpose."""
    alpha, beta = site.real("alpha", 1.0), site.real("beta", 1.0)
    first, second = site.flag("transA"), site.flag("transB")

    def run(a: Any, b: Any, c: Any = None) -> Any:
        a = a.t() if first else a
        if second and alpha == beta == 1.0 and (c is None or c.dim() == 1) and floats(a):
            return F.linear(a, b, c if c is None or len(c) == len(b) else c.expand(len(b)))
        y = torch.mm(a, b.t() if second else b)
        y = y if alpha == 1.0 else alpha * y
        if c is None or beta == 0.0:
            return y
        y = y + (c if beta == 1.0 else beta * c)
        return y if floats(a) else y.to(a.dtype)

    return run


@operator("Einsum")
def einsum(site: Site) -> Run:
    """Einsum, in Einstein's notation."""
    equation = site.text("equation", "").replace(" ", "")
    return lambda *tensors: torch.einsum(equation, *tensors)
