# SPDX-License-Identifier: Apache-2.0
"""From a goal to recipes, candidates, the frontier, and a bundle."""
