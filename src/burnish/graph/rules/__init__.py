# SPDX-License-Identifier: Apache-2.0
"""The rewrites that `Fuse` applies, by what they are about; each exact up to rounding."""

from burnish.graph.rewrite import Rule
from burnish.graph.rules.activation import ACTIVATION
from burnish.graph.rules.layout import LAYOUT
from burnish.graph.rules.normalization import NORMALIZATION, Form
from burnish.graph.rules.pooling import POOLING
from burnish.graph.rules.shortcut import SHORTCUT


def rules(local_response: Form) -> tuple[Rule, ...]:
    """Returns all rules in the order in which they are tried; see `normalization` for the form."""
    return (*LAYOUT, *NORMALIZATION[local_response], *POOLING, *SHORTCUT, *ACTIVATION)
