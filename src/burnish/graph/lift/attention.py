# SPDX-License-Identifier: Apache-2.0
"""Attention, rotary positions, linear attention."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from burnish.graph.lift.dtypes import torch_dtype
from burnish.graph.lift.registry import Run, Site, operator


def _heads(x: Any, count: int) -> Any:
    """Returns (batch, length, heads · size) as (batch, heads, length, size)."""
    return x if x.dim() == 4 else x.unflatten(-1, (count, -1)).transpose(1, 2)


class _Attention:
    """The attributes of one Attention node, and its formula."""

    def __init__(self, site: Site) -> None:
        self.queries, self.keys = site.integer("q_num_heads", 0), site.integer("kv_num_heads", 0)
        self.causal = site.flag("is_causal")
        self.left = site.integer("left_window_size", -1)
        self.right = site.integer("right_window_size", -1)
        self.scale = site.real("scale", 0.0) if "scale" in site.node.attributes else None
        self.softcap = site.real("softcap", 0.0)
        precision = site.integer("softmax_precision", 0)
        self.precision = torch_dtype(precision) if precision else None
        self.mode = site.integer("qk_matmul_output_mode", 0)
        self.scores = site.wants(3)
        # Fused kernels know neither of these; a row without keys they answer with NaN.
        self.plain = not (self.softcap or self.precision or self.scores) and (
            self.left < 0 and self.right < 0
        )

    def bias(self, q: Any, k: Any, mask: Any, offset: Any, length: Any) -> Any:
        """Returns what is added to the scores: 0, −∞ where a key must not be seen, or a mask."""
        keys = k.shape[2]
        found: Any = None
        if mask is not None:
            if mask.shape[-1] < keys and mask.shape[-1] != 1:
                empty = False if mask.dtype == torch.bool else float("-inf")
                mask = F.pad(mask, [0, keys - mask.shape[-1]], value=empty)
            found = self._open(mask, q.dtype) if mask.dtype == torch.bool else mask
        allowed: Any = None
        if self.causal or self.left >= 0 or self.right >= 0:
            offsets = offset.reshape(-1, 1, 1, 1) if isinstance(offset, torch.Tensor) else offset
            place = torch.arange(q.shape[2], device=q.device)[:, None] + offsets
            ahead = torch.arange(keys, device=q.device) - place
            allowed = torch.ones_like(ahead, dtype=torch.bool)
            allowed = allowed & (ahead <= 0) if self.causal else allowed
            allowed = allowed & (-ahead <= self.left) if self.left >= 0 else allowed
            allowed = allowed & (ahead <= self.right) if self.right >= 0 else allowed
        if length is not None:
            valid = torch.arange(keys, device=q.device) < length.reshape(-1, 1, 1, 1)
            allowed = valid if allowed is None else allowed & valid
        if allowed is not None:
            limit = self._open(allowed, q.dtype)
            found = limit if found is None else found + limit
        return found

    @staticmethod
    def _open(allowed: Any, dtype: Any) -> Any:
        zero = torch.zeros((), dtype=dtype, device=allowed.device)
        return torch.where(allowed, zero, float("-inf"))

    def __call__(
        self,
        q: Any,
        k: Any,
        v: Any,
        mask: Any = None,
        past_k: Any = None,
        past_v: Any = None,
        length: Any = None,
    ) -> Any:
        packed = q.dim() == 3
        q, k, v = _heads(q, self.queries), _heads(k, self.keys), _heads(v, self.keys)
        offset: Any = 0
        if past_k is not None:
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
            offset = past_k.shape[2]
        elif length is not None:
            offset = length - q.shape[2]
        bias = self.bias(q, k, mask, offset, length)
        present_k, present_v = k, v
        if q.shape[1] != k.shape[1]:
            each = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(each, 1), v.repeat_interleave(each, 1)
        scale = 1.0 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale
        if self.plain and bias is None:
            y, scores = F.scaled_dot_product_attention(q, k, v, scale=scale), None
        else:
            y, scores = self._formula(q, k, v, bias, scale)
        if packed:
            y = y.transpose(1, 2).flatten(2)
        return y, present_k, present_v, scores

    def _formula(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> tuple[Any, Any]:
        root = math.sqrt(scale)
        raw = (q * root) @ (k * root).transpose(-1, -2)
        capped = self.softcap * torch.tanh(raw / self.softcap) if self.softcap else raw
        biased = capped if bias is None else capped + bias
        wide = biased if self.precision is None else biased.to(self.precision)
        shares = torch.softmax(wide, -1)
        if bias is not None:  # a query that may see no key at all gets zeros
            blind = torch.isneginf(bias).all(-1, keepdim=True)
            shares = torch.where(blind, torch.zeros_like(shares), shares)
        shares = shares.to(q.dtype)
        return shares @ v, (raw, capped, biased, shares)[self.mode].to(q.dtype)


@operator("Attention")
def attention(site: Site) -> Run:
    """Attention: softmax(Q·Kᵀ·scale + mask) · V; heads of keys may be shared by queries.

    Source: Vaswani et al. 2017, equation 1; Ainslie et al. 2023 for shared heads.
    """
    return _Attention(site).__call__


@operator("RotaryEmbedding")
def rotary(site: Site) -> Run:
    """RotaryEmbedding: turns pairs of features by an angle that grows with the position.

    Source: Su et al. 2021 (RoFormer), equation 34.
    """
    heads, part = site.integer("num_heads", 0), site.integer("rotary_embedding_dim", 0)
    interleaved = site.flag("interleaved")

    def run(x: Any, cosine: Any, sine: Any, positions: Any = None) -> Any:
        packed = x.dim() == 3
        y = x.unflatten(-1, (heads, -1)) if packed else x.transpose(1, 2)
        turned, rest = (y[..., :part], y[..., part:]) if part else (y, None)
        if positions is not None:
            cosine, sine = cosine[positions], sine[positions]
        cosine, sine = cosine.unsqueeze(2), sine.unsqueeze(2)
        a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
        real, imaginary = cosine * a - sine * b, sine * a + cosine * b
        if interleaved:
            turned = torch.stack([real, imaginary], -1).flatten(-2)
        else:
            turned = torch.cat([real, imaginary], -1)
        y = turned if rest is None else torch.cat([turned, rest], -1)
        return y.reshape(x.shape) if packed else y.transpose(1, 2)

    return run


@operator("LinearAttention")
def linear_attention(site: Site) -> Run:
    """LinearAttention: a recurrence over a state of (key size, value size) for each head.

    Source: Yang et al. 2024 (Gated Delta Networks), equation 10; each step decays the
    state, corrects the value by what the state already gives, and adds k ⊗ v.
    """
    queries, keys = site.integer("q_num_heads", 1), site.integer("kv_num_heads", 1)
    scale, rule = site.real("scale", 0.0), site.text("update_rule", "gated_delta")

    def run(q: Any, k: Any, v: Any, past: Any = None, decay: Any = None, beta: Any = None) -> Any:
        held = q.dtype if past is None else past.dtype
        made = q.dtype
        q, k, v = (_heads(x, n).float() for x, n in ((q, queries), (k, keys), (v, keys)))
        fade = None if decay is None else _heads(decay, keys).float().exp()
        rate = None if beta is None else _heads(beta, beta.shape[-1]).float()
        state = (
            q.new_zeros((len(q), keys, k.shape[-1], v.shape[-1])) if past is None else past.float()
        )
        factor = scale or 1.0 / math.sqrt(q.shape[-1])
        rows = []
        for t in range(q.shape[2]):
            key, value = k[:, :, t], v[:, :, t]
            if fade is not None:
                state = state * fade[:, :, t].unsqueeze(-1)
            if rate is not None and "delta" in rule:
                value = rate[:, :, t] * (value - torch.einsum("bhkv,bhk->bhv", state, key))
            state = state + key.unsqueeze(-1) * value.unsqueeze(-2)
            read = state.repeat_interleave(queries // keys, 1)
            rows.append(factor * torch.einsum("bhk,bhkv->bhv", q[:, :, t], read))
        y = torch.stack(rows, 1).flatten(2)
        return y.to(made), state.to(held)

    return run
