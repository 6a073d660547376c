# SPDX-License-Identifier: Apache-2.0
"""What each operator does to channels, by family; an operator that is not here locks."""
