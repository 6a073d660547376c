# SPDX-License-Identifier: Apache-2.0
"""The rewrites that `Fuse` applies, by what they are about; each exact up to rounding."""

from burnish.graph.rules.activation import ACTIVATION
from burnish.graph.rules.layout import LAYOUT
from burnish.graph.rules.normalization import NORMALIZATION
from burnish.graph.rules.pooling import POOLING

RULES = (*LAYOUT, *NORMALIZATION, *POOLING, *ACTIVATION)
"""All rules, in the order in which they are tried."""
