# SPDX-License-Identifier: Apache-2.0
"""Which channels must be cut together, cutting them, and the dense model that equals the cut."""

from burnish.graph.channels.cut import cut
from burnish.graph.channels.groups import ChannelGroup, Slice, channel_groups, describe
from burnish.graph.channels.zero import zero

__all__ = ["ChannelGroup", "Slice", "channel_groups", "cut", "describe", "zero"]
